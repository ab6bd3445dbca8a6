/* Handlers of interrupts.c: count, acknowledge, return. A handful of instructions, because
   ring 0 may be emulated. */

#define VECTORS 16
#define STUB_BYTES 16
#define APIC_END_OF_INTERRUPT 0xfee000b0

  .text
  .globl interrupt_stubs, interrupt_spurious
  .balign STUB_BYTES
interrupt_stubs:
  .set index, 0
  .rept VECTORS
  .balign STUB_BYTES
  addl $1, interrupt_counts + index * 4
  jmp interrupt_end
  .set index, index + 1
  .endr

interrupt_end:
  pushq %rax
  movl $APIC_END_OF_INTERRUPT, %eax
  movl $0, (%rax)
  popq %rax
interrupt_spurious: /* needs no acknowledgement */
  iretq

  .bss
  .balign 4
  .globl interrupt_counts
interrupt_counts:
  .skip VECTORS * 4

  .section .note.GNU-stack, "", @progbits
