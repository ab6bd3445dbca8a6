/* Entry stubs of the 32 exceptions: a uniform frame {vector, error code, rip, cs, rflags,
   rsp, ss} for ExceptionReport, which does not return. Runs in ring 0 on the TSS's stack. */

#define STUB_BYTES 16

  .text
  .globl exception_stubs
  .balign STUB_BYTES
exception_stubs:
  .set vector, 0
  .rept 32
  .balign STUB_BYTES
  /* 8, 10 to 14, 17, 21, 29 and 30 push an error code themselves. */
  .if ((0x60227d00 >> vector) & 1) == 0
  pushq $0
  .endif
  pushq $vector
  jmp exception_common
  .set vector, vector + 1
  .endr

exception_common:
  movq %rsp, %rdi
  movq %cr2, %rsi
  andq $-16, %rsp
  call ExceptionReport

  .section .note.GNU-stack, "", @progbits
