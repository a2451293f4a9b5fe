# Version and commit, for --version and for what a run writes down.
execute_process(COMMAND git -C ${CMAKE_SOURCE_DIR} rev-parse --short=12 HEAD
                OUTPUT_VARIABLE F2B_COMMIT OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(NOT F2B_COMMIT)
  set(F2B_COMMIT "unknown")
endif()
configure_file(cmake/version.h.in ${CMAKE_BINARY_DIR}/generated/f2b_version.h @ONLY)
target_include_directories(f2b_flags INTERFACE ${CMAKE_BINARY_DIR}/generated)
