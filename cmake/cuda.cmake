# The CUDA device (docs/cuda.md). Its files are no part of a room's library: ops name its kernels
# weakly, and a program has the device when the files' objects are linked into it. Programs link
# ${F2B_CUDA_LIBRARY}; op tests link the emulation (tests/emulation.cmake).
option(F2B_CUDA "Build for NVIDIA devices too (needs nvcc)" OFF)
set(F2B_CUDA_ARCHITECTURES "80-real;89-real;90" CACHE STRING
    "Devices to build for; the one without -real comes as PTX for newer ones besides")

file(GLOB F2B_CUDA_HOST CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/autograd/device/cuda/*.c)
file(GLOB_RECURSE F2B_CUDA_KERNELS CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/autograd/*.cu)
set(F2B_CUDA_TYPES F32 BF16)
# Launch stubs hold a static each: guarding it would need the C++ library.
set(F2B_NVCC_FLAGS --Werror all-warnings -Xcompiler -fno-threadsafe-statics)
if(F2B_PORTABLE)
  list(APPEND F2B_NVCC_FLAGS --compress-mode=size)
endif()
set(F2B_CUDA_LIBRARY "")
find_program(F2B_NVCC nvcc HINTS $ENV{CUDA_PATH}/bin /usr/local/cuda/bin)

if(F2B_CUDA)
  if(NOT F2B_NVCC)
    message(FATAL_ERROR "nvcc was not found: install the CUDA toolkit, or configure without F2B_CUDA")
  endif()
  set(CMAKE_CUDA_COMPILER ${F2B_NVCC})
  set(CMAKE_CUDA_ARCHITECTURES ${F2B_CUDA_ARCHITECTURES})
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)
  message(STATUS "CUDA ${CMAKE_CUDA_COMPILER_VERSION} for ${F2B_CUDA_ARCHITECTURES}")

  set(CMAKE_CUDA_STANDARD 17)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  add_library(f2b_cuda INTERFACE)
  # The runtime is linked statically and finds the driver when it is first called: a program starts
  # on a machine that has none.
  target_link_libraries(f2b_cuda INTERFACE CUDA::cudart_static ${CMAKE_DL_LIBS})
  add_library(f2b_cuda_host OBJECT ${F2B_CUDA_HOST})
  target_include_directories(f2b_cuda_host SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
  target_link_libraries(f2b_cuda_host PRIVATE f2b_flags)
  target_link_libraries(f2b_cuda INTERFACE $<TARGET_OBJECTS:f2b_cuda_host>)
  foreach(type ${F2B_CUDA_TYPES})
    add_library(f2b_cuda_${type} OBJECT ${F2B_CUDA_KERNELS})
    target_compile_definitions(f2b_cuda_${type} PRIVATE F2B_KERNEL_${type})
    target_compile_options(f2b_cuda_${type} PRIVATE ${F2B_NVCC_FLAGS})
    target_link_libraries(f2b_cuda_${type} PRIVATE f2b_flags)
    target_link_libraries(f2b_cuda INTERFACE $<TARGET_OBJECTS:f2b_cuda_${type}>)
  endforeach()
  # The matrix instructions by themselves, for their test on a device (tests/cuda/test_tensor_core.c).
  add_library(f2b_cuda_matrices OBJECT ${CMAKE_SOURCE_DIR}/tests/cuda/matrices.cu)
  target_compile_definitions(f2b_cuda_matrices PRIVATE F2B_KERNEL_F32)
  target_compile_options(f2b_cuda_matrices PRIVATE ${F2B_NVCC_FLAGS})
  target_link_libraries(f2b_cuda_matrices PRIVATE f2b_flags)
  set(F2B_CUDA_LIBRARY f2b_cuda)
endif()
