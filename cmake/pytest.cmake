# tests/<room>/**/test_<name>.py is one pytest run and one ctest entry, label `oracle`; it is
# skipped where the Python oracles are not installed (scripts/setup.sh brings them). One thread: the
# tensors are tiny, and threads that spin for work slow whatever runs beside.
file(GLOB_RECURSE python_tests CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/test_*.py)
foreach(test ${python_tests})
  get_filename_component(name ${test} NAME_WE)
  file(RELATIVE_PATH room ${CMAKE_SOURCE_DIR}/tests ${test})
  string(REGEX REPLACE "/.*" "" room ${room})
  add_test(NAME ${room}/${name} COMMAND ${CMAKE_SOURCE_DIR}/tests/oracle/run_pytest.sh ${test}
           WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(${room}/${name} PROPERTIES LABELS "oracle;${room}" TIMEOUT 600
                       SKIP_RETURN_CODE 77
                       ENVIRONMENT "OMP_NUM_THREADS=1;F2B_BUILD_DIR=${CMAKE_BINARY_DIR}")
endforeach()
