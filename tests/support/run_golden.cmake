# Runs rankscope-golden for a test. Where the reference data or the device is missing it says so in the words that
# golden.cmake's SKIP_REGULAR_EXPRESSION looks for, and the test counts as skipped.
if(DEFINED ENV{RANKSCOPE_SHARED})
  list(APPEND candidates "$ENV{RANKSCOPE_SHARED}")
endif()
cmake_path(GET SOURCE_DIR PARENT_PATH beside)
list(APPEND candidates "${SHARED}" "${beside}/shared")
foreach(candidate ${candidates})
  if(candidate AND IS_DIRECTORY "${candidate}/golden/${FOLDER}")
    set(cases "${candidate}/golden/${FOLDER}")
    break()
  endif()
endforeach()
if(NOT cases)
  message("no reference data here: set RANKSCOPE_SHARED to the folder that holds golden/ and models/")
  return()
endif()

execute_process(COMMAND ${PROGRAM} ${cases} --backend ${BACKEND} RESULT_VARIABLE status)
if(status EQUAL 5) # no device
  message("no such device here: ${BACKEND}")
elseif(NOT status EQUAL 0)
  message(FATAL_ERROR "rankscope-golden ended with status ${status}")
endif()
