// SPDX-License-Identifier: GPL-3.0-or-later
// Finds Vulkan at run time: the program links no loader, so that it starts on machines without one.
#include "gpu/loader.h"

#include "core/base/log.h"
#include "gpu/failure.h"

#include <array>
#include <cstring>
#include <mutex>

namespace rankscope::gpu {

namespace {

constexpr char k_validation_layer[] = "VK_LAYER_KHRONOS_validation";

struct MessageLog {
    std::mutex mutex;
    std::vector<std::string> messages;
};

MessageLog& message_log()
{
    static MessageLog log;
    return log;
}

VKAPI_ATTR VkBool32 VKAPI_CALL on_message(VkDebugUtilsMessageSeverityFlagBitsEXT,
                                          VkDebugUtilsMessageTypeFlagsEXT,
                                          const VkDebugUtilsMessengerCallbackDataEXT* data, void*)
{
    const std::string text = data->pMessage != nullptr ? data->pMessage : "validation message without text";
    {
        MessageLog& collected = message_log();
        const std::lock_guard lock(collected.mutex);
        collected.messages.push_back(text);
    }
    log::error(text);
    return VK_FALSE;
}

VkDebugUtilsMessengerCreateInfoEXT messenger_info()
{
    VkDebugUtilsMessengerCreateInfoEXT info{};
    info.sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT;
    info.messageSeverity =
        VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT;
    info.messageType =
        VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_TYPE_PERFORMANCE_BIT_EXT;
    info.pfnUserCallback = on_message;
    return info;
}

bool validation_layer_installed()
{
    std::uint32_t count = 0;
    if (vkEnumerateInstanceLayerProperties(&count, nullptr) != VK_SUCCESS)
        return false;
    std::vector<VkLayerProperties> layers(count);
    if (vkEnumerateInstanceLayerProperties(&count, layers.data()) < VK_SUCCESS)
        return false;
    for (const VkLayerProperties& layer : layers) {
        if (std::strcmp(layer.layerName, k_validation_layer) == 0)
            return true;
    }
    return false;
}

Error no_loader()
{
    return {
        ErrorKind::NoDevice,
        "no Vulkan loader is installed on this machine (libvulkan.so.1 was not found)",
        {},
        "Install libvulkan1 and the driver of your graphics card, or compute on the CPU with --backend cpu"};
}

Error no_driver()
{
    return {ErrorKind::NoDevice,
            "no Vulkan driver was found on this machine",
            {},
            "Install the Vulkan driver of your graphics card (for example mesa-vulkan-drivers), or compute "
            "on the "
            "CPU with --backend cpu"};
}

struct LiveInstances {
    std::mutex mutex;
    std::array<std::weak_ptr<Instance>, 3> by_validation;
};

LiveInstances& live_instances()
{
    static LiveInstances live;
    return live;
}

} // namespace

Result<std::shared_ptr<Instance>> Instance::acquire(Validation validation)
{
    LiveInstances& live = live_instances();
    const std::lock_guard lock(live.mutex);
    std::weak_ptr<Instance>& slot = live.by_validation[static_cast<std::size_t>(validation)];
    if (auto instance = slot.lock())
        return instance;
    auto instance = create(validation);
    if (instance)
        slot = *instance;
    return instance;
}

Result<std::shared_ptr<Instance>> Instance::create(Validation validation)
{
    if (volkInitialize() != VK_SUCCESS)
        return no_loader();
    if (volkGetInstanceVersion() < VK_API_VERSION_1_2)
        return Error{ErrorKind::NoDevice,
                     "the Vulkan loader of this machine is older than Vulkan 1.2",
                     {},
                     "Update the graphics driver, or compute on the CPU with --backend cpu"};
    if (validation != Validation::Off && !validation_layer_installed()) {
        log::warn_once("The Vulkan validation layers are not installed: running without them.");
        validation = Validation::Off;
    }

    VkApplicationInfo application{};
    application.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO;
    application.pApplicationName = "Rankscope";
    application.apiVersion = VK_API_VERSION_1_2;

    const std::array<const char*, 1> layers{k_validation_layer};
    const std::array<const char*, 2> extensions{VK_EXT_DEBUG_UTILS_EXTENSION_NAME,
                                                VK_EXT_VALIDATION_FEATURES_EXTENSION_NAME};
    const std::array<VkValidationFeatureEnableEXT, 3> enabled{
        VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT,
        VK_VALIDATION_FEATURE_ENABLE_GPU_ASSISTED_EXT,
        VK_VALIDATION_FEATURE_ENABLE_GPU_ASSISTED_RESERVE_BINDING_SLOT_EXT};
    VkDebugUtilsMessengerCreateInfoEXT messages = messenger_info();
    VkValidationFeaturesEXT features{};
    features.sType = VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT;
    features.pNext = &messages; // covers the creation and the destruction of the instance itself
    features.enabledValidationFeatureCount = validation == Validation::GpuAssisted ? 3 : 1;
    features.pEnabledValidationFeatures = enabled.data();

    VkInstanceCreateInfo info{};
    info.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO;
    info.pApplicationInfo = &application;
    if (validation != Validation::Off) {
        info.pNext = &features;
        info.enabledLayerCount = static_cast<std::uint32_t>(layers.size());
        info.ppEnabledLayerNames = layers.data();
        info.enabledExtensionCount = static_cast<std::uint32_t>(extensions.size());
        info.ppEnabledExtensionNames = extensions.data();
    }
    std::shared_ptr<Instance> instance(new Instance);
    const VkResult created = vkCreateInstance(&info, nullptr, &instance->handle_);
    if (created == VK_ERROR_INCOMPATIBLE_DRIVER)
        return no_driver();
    if (created != VK_SUCCESS)
        return vulkan_error(created, "start Vulkan");
    // The loader's entry points of core functions serve every instance: loaded once, so that no thread that
    // already calls them sees them change. Those of an extension belong to their instance.
    static const bool loaded = (volkLoadInstanceOnly(instance->handle_), true);
    (void)loaded;
    if (validation != Validation::Off) {
        const auto create_messenger = reinterpret_cast<PFN_vkCreateDebugUtilsMessengerEXT>(
            vkGetInstanceProcAddr(instance->handle_, "vkCreateDebugUtilsMessengerEXT"));
        if (create_messenger != nullptr)
            (void)create_messenger(instance->handle_, &messages, nullptr, &instance->messenger_);
    }
    return instance;
}

Instance::~Instance()
{
    if (handle_ == VK_NULL_HANDLE)
        return;
    if (messenger_ != VK_NULL_HANDLE) {
        const auto destroy_messenger = reinterpret_cast<PFN_vkDestroyDebugUtilsMessengerEXT>(
            vkGetInstanceProcAddr(handle_, "vkDestroyDebugUtilsMessengerEXT"));
        if (destroy_messenger != nullptr)
            destroy_messenger(handle_, messenger_, nullptr);
    }
    vkDestroyInstance(handle_, nullptr);
}

std::vector<std::string> collected_validation_messages()
{
    MessageLog& collected = message_log();
    const std::lock_guard lock(collected.mutex);
    return collected.messages;
}

} // namespace rankscope::gpu
