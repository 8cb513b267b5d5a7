#include "gpu/vulkan_backend.h"
