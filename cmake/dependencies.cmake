# What the rooms link. Each missing required library says which Debian package brings it.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS C)

# GNU OpenMP is linked statically where its archive is there: autograd/device/cpu/threads.c says why.
add_library(f2b_openmp INTERFACE)
target_compile_options(f2b_openmp INTERFACE ${OpenMP_C_FLAGS})
execute_process(COMMAND ${CMAKE_C_COMPILER} -print-file-name=libgomp.a
                OUTPUT_VARIABLE F2B_LIBGOMP OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(CMAKE_C_COMPILER_ID STREQUAL "GNU" AND IS_ABSOLUTE "${F2B_LIBGOMP}")
  target_link_libraries(f2b_openmp INTERFACE ${F2B_LIBGOMP} ${CMAKE_DL_LIBS} Threads::Threads)
  message(STATUS "OpenMP: ${F2B_LIBGOMP}")
else()
  target_link_libraries(f2b_openmp INTERFACE OpenMP::OpenMP_C)
  message(STATUS "OpenMP: shared; on a busy machine set OMP_WAIT_POLICY=passive")
endif()

function(f2b_require name module package)
  pkg_check_modules(${name} IMPORTED_TARGET GLOBAL ${module})
  if(NOT ${name}_FOUND)
    message(FATAL_ERROR "${module} was not found: apt-get install ${package} (scripts/setup.sh installs all)")
  endif()
  message(STATUS "${module} ${${name}_VERSION}")
endfunction()

f2b_require(HDF5 hdf5 libhdf5-dev)
f2b_require(YAML yaml-0.1 libyaml-dev)
f2b_require(JANSSON jansson libjansson-dev)
f2b_require(XXHASH libxxhash libxxhash-dev)
f2b_require(STB stb libstb-dev)
if(BUILD_TESTING)
  f2b_require(CMOCKA cmocka libcmocka-dev)
endif()
