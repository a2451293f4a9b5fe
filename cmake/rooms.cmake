# One static library a room; the link order below is the order of allowed includes (docs/design.md).
function(f2b_room name)
  cmake_parse_arguments(ROOM "" "" "LINK" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${name}/*.c)
  list(FILTER sources EXCLUDE REGEX "_cpu\\.c$|/device/cuda/")
  if(sources)
    add_library(f2b_${name} STATIC ${sources})
    target_link_libraries(f2b_${name} PUBLIC f2b_flags ${ROOM_LINK})
  else()
    add_library(f2b_${name} INTERFACE)
    target_link_libraries(f2b_${name} INTERFACE f2b_flags ${ROOM_LINK})
  endif()
endfunction()

f2b_room(autograd LINK f2b_openmp Threads::Threads m)
f2b_room(nn LINK f2b_autograd)
f2b_room(data LINK f2b_autograd PkgConfig::JANSSON PkgConfig::JPEG PkgConfig::XXHASH)
f2b_room(checkpoints LINK f2b_nn PkgConfig::HDF5 PkgConfig::JANSSON PkgConfig::XXHASH)
f2b_room(infer LINK f2b_nn f2b_data f2b_checkpoints)
f2b_room(train LINK f2b_infer PkgConfig::YAML)

# An op's CPU kernels are written once over `real` (device/cpu/kernel.h) and compiled for each type.
file(GLOB_RECURSE kernels CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/autograd/*_cpu.c)
# gcc prefers half a vector on Sapphire Rapids; loops that are not bound by memory are faster with all of it.
include(CheckCCompilerFlag)
check_c_compiler_flag(-mprefer-vector-width=512 F2B_HAVE_VECTOR_WIDTH)
# For AMD's Zen 2 and 3 gcc leaves some chains of multiply-adds unfused, one row's but not several rows'. A sum's bits
# must not depend on that (autograd/device/cpu/gemm.h).
check_c_compiler_flag(--param=avoid-fma-max-bits=0 F2B_HAVE_FMA_CHAINS)
foreach(type F32 F64 BF16)
  if(kernels)
    add_library(f2b_kernels_${type} OBJECT ${kernels})
    target_compile_definitions(f2b_kernels_${type} PRIVATE F2B_KERNEL_${type})
    # -std=c11 turns fused multiply-adds off; the other two let loops with selects and calls vectorise.
    target_compile_options(f2b_kernels_${type} PRIVATE -ffp-contract=fast -fno-math-errno
                           -fno-trapping-math
                           $<$<BOOL:${F2B_HAVE_VECTOR_WIDTH}>:-mprefer-vector-width=512>
                           $<$<BOOL:${F2B_HAVE_FMA_CHAINS}>:--param=avoid-fma-max-bits=0>)
    target_link_libraries(f2b_kernels_${type} PRIVATE f2b_flags f2b_openmp)
    target_sources(f2b_autograd PRIVATE $<TARGET_OBJECTS:f2b_kernels_${type}>)
  endif()
endforeach()

include(cmake/cuda.cmake)

# Programs: cli/<name>_main.c becomes f2b-<name>; everything else in cli/ is shared by them.
file(GLOB cli_shared CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/cli/*.c)
set(cli_mains ${cli_shared})
list(FILTER cli_mains INCLUDE REGEX "_main\\.c$")
list(FILTER cli_shared EXCLUDE REGEX "_main\\.c$")
if(cli_shared)
  add_library(f2b_cli STATIC ${cli_shared})
  target_link_libraries(f2b_cli PUBLIC f2b_train)
endif()
set(F2B_PROGRAMS "")
foreach(main ${cli_mains})
  get_filename_component(stem ${main} NAME)
  string(REGEX REPLACE "_main\\.c$" "" stem ${stem})
  add_executable(f2b-${stem} ${main})
  target_link_libraries(f2b-${stem} PRIVATE f2b_cli ${F2B_CUDA_LIBRARY})
  list(APPEND F2B_PROGRAMS f2b-${stem})
endforeach()
add_custom_target(programs DEPENDS ${F2B_PROGRAMS})
