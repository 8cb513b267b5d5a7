# The known answers as tests: those that this version is to pass, on the CPU and on the first Vulkan device. A whole
# folder, with the cases of methods still to come: rankscope-golden DIR.
set(golden_joint 
  "rtn_*,gptq_*,ldl_*,ldlq_e8p,weighted_lowrank_*,lplr4_*,caldera_*,odlri_*,hadamard,rht,e8p_codebook,e8p_matrix,mxint_*")
set(golden_learned
  "rtn_*,act_per_token_8,svd_b*,lqer_*,qera_*,rankonly_*,tail_curve_*,stats_*,allocate_*,evaluate_*,nf*")

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
      "-DFILTER=${golden_${folder}}" "-DSHARED=${RANKSCOPE_SHARED}" -DSOURCE_DIR=${CMAKE_SOURCE_DIR}
      -P ${CMAKE_CURRENT_SOURCE_DIR}/support/run_golden.cmake)
    set_tests_properties(${test} PROPERTIES LABELS ${label} TIMEOUT 600
      SKIP_REGULAR_EXPRESSION "no reference data here;no such device here" ENVIRONMENT "${test_environment}")
  endforeach()
endforeach()
