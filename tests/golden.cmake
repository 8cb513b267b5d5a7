# The known answers as tests: all that there are, on the CPU and on the first Vulkan device.
foreach(folder joint learned)
  foreach(backend cpu vulkan:0)
    if(backend STREQUAL "cpu")
      set(test golden_${folder})
      set(label unit)
    else()
      set(test golden_${folder}_vulkan)
      set(label gpu)
    endif()
    add_test(NAME ${test} COMMAND ${CMAKE_COMMAND}
      -DPROGRAM=$<TARGET_FILE:rankscope-golden> -DFOLDER=${folder} -DBACKEND=${backend}
      "-DSHARED=${RANKSCOPE_SHARED}" -DSOURCE_DIR=${CMAKE_SOURCE_DIR}
      -P ${CMAKE_CURRENT_SOURCE_DIR}/support/run_golden.cmake)
    set_tests_properties(${test} PROPERTIES LABELS ${label} TIMEOUT 600
      SKIP_REGULAR_EXPRESSION "no reference data here;no such device here" ENVIRONMENT "${test_environment}")
  endforeach()
endforeach()
