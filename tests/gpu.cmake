# The kernels must not depend on the width of a subgroup: lavapipe runs 4, 8 or 16 invocations at a time.
if(TARGET test_vulkan_backend)
  foreach(width 128 512)
    add_test(NAME test_vulkan_backend_width_${width} COMMAND test_vulkan_backend operations_match_the_cpu)
    set_tests_properties(test_vulkan_backend_width_${width} PROPERTIES LABELS gpu TIMEOUT 600
      ENVIRONMENT "${test_environment};LP_NATIVE_VECTOR_WIDTH=${width}")
  endforeach()
endif()
