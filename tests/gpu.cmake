# The kernels must not depend on the width of a subgroup: lavapipe runs 4, 8 or 16 invocations at a time.
if(TARGET test_vulkan_backend)
  foreach(width 128 512)
    add_test(NAME test_vulkan_backend_width_${width} COMMAND test_vulkan_backend operations_match_the_cpu)
    set_tests_properties(test_vulkan_backend_width_${width} PROPERTIES LABELS gpu TIMEOUT 600
      ENVIRONMENT "${test_environment};LP_NATIVE_VECTOR_WIDTH=${width}")
  endforeach()
  # Matrices beyond one binding, and checks inside the kernels of what they read and write: ctest -L slow
  add_test(NAME test_vulkan_backend_large COMMAND test_vulkan_backend operations_match_the_cpu:mapped)
  set_tests_properties(test_vulkan_backend_large PROPERTIES LABELS slow TIMEOUT 3600
    ENVIRONMENT "${test_environment};RANKSCOPE_TEST_LARGE=1")
  add_test(NAME test_vulkan_backend_gpu_assisted COMMAND test_vulkan_backend operations_match_the_cpu)
  set_tests_properties(test_vulkan_backend_gpu_assisted PROPERTIES LABELS slow TIMEOUT 3600
    ENVIRONMENT "${test_environment};RANKSCOPE_TEST_GPU_ASSISTED=1")
endif()
