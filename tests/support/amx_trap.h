/*
 * Intel AMX on a processor without it, for tests: every AMX instruction of this process is an illegal
 * one there, and the handler of the signal carries it out as Intel's manual (SDM, volume 2) says. So
 * tests run the very machine code that a processor with AMX will. What the processor would refuse (a
 * tile that is not set up, shapes that do not match) ends the program with a message; rows that lie
 * outside their buffer are found by AddressSanitizer, because the handler reads and writes like any
 * other code.
 *
 * Not modelled: time, and that tiles cost the system something at a switch of threads.
 */
#ifndef F2B_TESTS_SUPPORT_AMX_TRAP_H
#define F2B_TESTS_SUPPORT_AMX_TRAP_H

#include <stdbool.h>
#include <stdint.h>

enum { F2B_TILE_ROWS = 16, F2B_TILE_WORDS = 16 };

/** Makes amx_bf16 available where avx512_bf16 is (products.h). Does nothing where the processor has it. To be
 * called in each test: cmocka puts its own handler there before one. */
void f2b_amx_trap(void);

/** Whether it is trapped, not done by the processor. */
bool f2b_amx_is_trapped(void);

/** Instructions carried out so far, by all threads; 0 where the processor has AMX. */
uint64_t f2b_amx_trapped(void);

/** What TDPBF16PS does: c [rows, cols] += a [rows, pairs] b [pairs, cols]; a word of a and b is a pair
 * of bf16, the even one low. */
void f2b_amx_products(float c[][F2B_TILE_WORDS], const uint32_t a[][F2B_TILE_WORDS],
                      const uint32_t b[][F2B_TILE_WORDS], int rows, int pairs, int cols);

#endif
