# What a card is qualified with (scripts/bundle.sh): the programs of tests/gpu/, and those of cli/, for a
# device. Everywhere for the emulated one, in emulated/{bin,tests}, so that all of it is tested without a
# GPU; in a build with CUDA for real ones too, in bin/ and tests/.
file(GLOB gpu_programs CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/gpu/*.c)
file(GLOB gpu_tests CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/ops/test_*.c
     ${CMAKE_CURRENT_SOURCE_DIR}/cuda/test_cuda_matmul.c ${CMAKE_CURRENT_SOURCE_DIR}/cuda/test_tensor_core.c)

# Every op's test with its main named as its file: gpu_tests.c is the main of them all.
add_library(f2b_gpu_tests INTERFACE)
set(list "")
set(prototypes "")
foreach(test ${gpu_tests})
  get_filename_component(name ${test} NAME_WE)
  string(APPEND list "F2B_X(${name})\n")
  string(APPEND prototypes "int ${name}_main(void);\n")
  add_library(entry_${name} OBJECT ${test})
  target_compile_definitions(entry_${name} PRIVATE main=${name}_main)
  target_compile_options(entry_${name} PRIVATE -include ${CMAKE_BINARY_DIR}/generated/gpu_tests.h)
  target_link_libraries(entry_${name} PRIVATE f2b_test_support)
  target_link_libraries(f2b_gpu_tests INTERFACE $<TARGET_OBJECTS:entry_${name}>)
endforeach()
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/generated/gpu_tests.inc CONTENT "${list}")
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/generated/gpu_tests.h CONTENT "${prototypes}")

# What is in the bundle looks for shared libraries in the bundle first, theirs too.
function(f2b_beside target)
  set_target_properties(${target} PROPERTIES BUILD_RPATH "$ORIGIN/../lib")
  target_link_options(${target} PRIVATE LINKER:--disable-new-dtags)
endfunction()

# f2b_for_device(PREFIX LIBRARY MATRICES FOLDER PROGRAM...): the programs of tests/gpu/, and cli's of
# these names, linked with LIBRARY (and gpu_tests with tests/cuda/matrices.cu, compiled as MATRICES), as
# targets PREFIX<name> in FOLDER/{tests,bin}.
function(f2b_for_device prefix library matrices folder)
  foreach(source ${gpu_programs})
    get_filename_component(name ${source} NAME_WE)
    add_executable(${prefix}${name} ${source})
    target_link_libraries(${prefix}${name} PRIVATE f2b_cli f2b_test_support ${library}
                          $<$<STREQUAL:${name},gpu_tests>:f2b_gpu_tests>)
    if(name STREQUAL "gpu_tests")
      target_sources(${prefix}${name} PRIVATE $<TARGET_OBJECTS:${matrices}>)
    endif()
    f2b_beside(${prefix}${name})
    set_target_properties(${prefix}${name} PROPERTIES OUTPUT_NAME ${name}
                          RUNTIME_OUTPUT_DIRECTORY ${folder}/tests)
  endforeach()
  foreach(name ${ARGN})
    add_executable(${prefix}f2b-${name} ${CMAKE_SOURCE_DIR}/cli/${name}_main.c)
    target_link_libraries(${prefix}f2b-${name} PRIVATE f2b_cli ${library})
    f2b_beside(${prefix}f2b-${name})
    set_target_properties(${prefix}f2b-${name} PROPERTIES OUTPUT_NAME f2b-${name}
                          RUNTIME_OUTPUT_DIRECTORY ${folder}/bin)
  endforeach()
endfunction()

f2b_for_device(emulated_ f2b_emulated_cuda f2b_emulated_matrices ${CMAKE_BINARY_DIR}/emulated train answer
               compress eval export inspect search)
if(F2B_CUDA)
  f2b_for_device(real_ f2b_cuda f2b_cuda_matrices ${CMAKE_BINARY_DIR})       # cli's programs are there already
  foreach(test ${gpu_tests})
    get_filename_component(name ${test} NAME_WE)
    add_test(NAME gpu/${name} COMMAND real_gpu_tests ${name} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
    set_tests_properties(gpu/${name} PROPERTIES LABELS gpu TIMEOUT 300
                         SKIP_REGULAR_EXPRESSION "there is no CUDA device here")
  endforeach()
endif()
