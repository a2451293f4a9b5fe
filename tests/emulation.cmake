# The CUDA device under emulation (tests/emulation/): the files that nvcc compiles, compiled for the
# host, with headers of the emulation in place of CUDA's. A test that links f2b_emulated_cuda has a
# device cuda:0.
enable_language(CXX)
set(CMAKE_CXX_STANDARD 17)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
file(GLOB emulation CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/emulation/*.c)
set_source_files_properties(${F2B_CUDA_KERNELS} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-x;c++")

add_library(f2b_emulated_cuda INTERFACE)
set(emulated_host ${F2B_CUDA_HOST})
list(FILTER emulated_host EXCLUDE REGEX "/cublaslt_load\\.c$")     # the emulation has its own
add_library(f2b_emulated_host OBJECT ${emulated_host} ${emulation})
target_link_libraries(f2b_emulated_cuda INTERFACE $<TARGET_OBJECTS:f2b_emulated_host>)
foreach(type ${F2B_CUDA_TYPES})
  add_library(f2b_emulated_${type} OBJECT ${F2B_CUDA_KERNELS})
  target_compile_definitions(f2b_emulated_${type} PRIVATE F2B_KERNEL_${type})
  target_compile_options(f2b_emulated_${type} PRIVATE -fno-exceptions -fno-rtti -Wall -Wextra -Wshadow
                         -Wno-attributes -Wno-unknown-pragmas
                         $<$<BOOL:${F2B_SANITIZE}>:-fsanitize-sections=f2b_shared>)
  target_link_libraries(f2b_emulated_cuda INTERFACE $<TARGET_OBJECTS:f2b_emulated_${type}>)
endforeach()
# Kernels of the emulation's own tests: with mistakes, and the matrix instructions by themselves.
foreach(probe planted matrices)
  set(source ${CMAKE_CURRENT_SOURCE_DIR}/cuda/${probe}.cu)
  set_source_files_properties(${source} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-x;c++")
  add_library(f2b_emulated_${probe} OBJECT ${source})
  target_compile_definitions(f2b_emulated_${probe} PRIVATE F2B_KERNEL_F32)
  target_compile_options(f2b_emulated_${probe} PRIVATE -fno-exceptions -fno-rtti -Wno-attributes)
endforeach()

foreach(part host planted matrices ${F2B_CUDA_TYPES})
  target_include_directories(f2b_emulated_${part} BEFORE PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/emulation/include)
  target_link_libraries(f2b_emulated_${part} PRIVATE f2b_flags)
endforeach()

# nvcc compiles all of it, where nvcc is: each file for each type, one architecture, warnings are
# errors. The objects are kept, so that only what changed is compiled again.
if(F2B_NVCC)
  add_test(NAME cuda/nvcc COMMAND ${CMAKE_COMMAND} -E env F2B_NVCC=${F2B_NVCC} "F2B_NVCC_FLAGS=${F2B_NVCC_FLAGS}"
           "F2B_CUDA_TYPES=${F2B_CUDA_TYPES}" bash ${CMAKE_CURRENT_SOURCE_DIR}/cuda/compile_with_nvcc.sh
           ${CMAKE_BINARY_DIR}/nvcc WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(cuda/nvcc PROPERTIES LABELS cuda TIMEOUT 900 PROCESSORS 2)
  # No kernel spills registers.
  add_test(NAME cuda/resources COMMAND ${CMAKE_COMMAND} -E env F2B_NVCC=${F2B_NVCC} bash
           ${CMAKE_SOURCE_DIR}/scripts/cuda_resources.sh --keep ${CMAKE_BINARY_DIR}/nvcc/resources)
  set_tests_properties(cuda/resources PROPERTIES LABELS cuda TIMEOUT 900 PROCESSORS 2)
endif()
