/* PVH entry of every payload: 32-bit protected mode without paging, %ebx = start_info.
   Builds nothing at run time: GDT, TSS and page tables for the first 4 GiB are static
   data, because ring 0 may be emulated (slowly, and without the rarer instructions).
   Notes for C what only ring 0 can learn reliably, then iretq to RuntimeMain in ring 3
   with IOPL 3 and an I/O bitmap that allows every port: a KVM that runs ring 3 natively
   may lose IOPL at the first exit. RuntimeMain maps memory above 4 GiB and fills the IDT itself: all pages,
   the page tables among them, are writable from ring 3. */

#define PAGE_TABLE_ENTRY 0x67 /* present, writable, user, accessed, dirty */
#define PAGE_2M_ENTRY 0xe7    /* the same with PS: accessed and dirty are never written by the CPU */

#define SEL_RING0_CODE 0x08
#define SEL_RING0_DATA 0x10
#define SEL_RING3_DATA 0x1b
#define SEL_RING3_CODE 0x23
#define SEL_TSS 0x28

#define TSS_RSP0 4          /* where an exception in ring 3 lands */
#define TSS_IO_BITMAP_BASE 102
#define TSS_IO_BITMAP 104
#define TSS_BYTES (TSS_IO_BITMAP + 65536 / 8 + 1) /* the CPU reads two bytes at a time */

#define CR4_PAE 0x20
#define CR0_PG_WP_PE 0x80010001
#define MSR_EFER 0xc0000080
#define EFER_LME 0x100
#define RFLAGS_IOPL3 0x3002
#define RFLAGS_IF 0x200

#define KVM_FEATURES_LEAF 0x40000001
#define KVM_FEATURE_CLOCKSOURCE2_BIT 3
#define MSR_KVM_SYSTEM_TIME_NEW 0x4b564d01
#define PVCLOCK_MUL 24 /* offset of tsc_to_system_mul in pvclock_vcpu_time_info */

  /* XEN_ELFNOTE_PHYS32_ENTRY (xen/include/public/elfnote.h). The descriptor is as wide
     as an address of the ELF class: some loaders read 8 bytes from an ELF64 file. */
  .section .note.pvh, "a", @note
  .balign 4
  .long 4, 8, 18
  .asciz "Xen"
  .quad pvh_start

  .text
  .code32
  .globl pvh_start
pvh_start:
  cld
  movl $ring0_stack_top, %esp
  movl %ebx, boot_start_info
  lgdt gdt_pointer
  movl %cr4, %eax
  orl $CR4_PAE, %eax
  movl %eax, %cr4
  movl $pml4, %eax
  movl %eax, %cr3
  movl $MSR_EFER, %ecx
  rdmsr
  orl $EFER_LME, %eax
  wrmsr
  movl %cr0, %eax
  orl $CR0_PG_WP_PE, %eax
  movl %eax, %cr0
  ljmp $SEL_RING0_CODE, $long_mode

  .code64
long_mode:
  movl $SEL_RING0_DATA, %eax
  movl %eax, %ss
  movl $SEL_RING3_DATA, %eax
  movl %eax, %ds
  movl %eax, %es
  xorl %eax, %eax
  movl %eax, %fs
  movl %eax, %gs

  /* The base of the TSS is scattered over its descriptor, which a relocation cannot do. */
  movl $tss, %eax
  movw %ax, gdt_tss + 2
  shrl $16, %eax
  movb %al, gdt_tss + 4
  movb %ah, gdt_tss + 7
  movl $ring0_stack_top, tss + TSS_RSP0
  movw $TSS_IO_BITMAP, tss + TSS_IO_BITMAP_BASE
  movl $SEL_TSS, %eax
  ltr %ax
  lidt idt_pointer

  rdtsc
  movl %eax, boot_tsc
  movl %edx, boot_tsc + 4

  /* CPUID is noted here: under some hypervisors ring 3 sees the host's instead. */
  movl $boot_cpuid, %edi
  movl $boot_cpuid_end, %ebp
cpuid_next:
  movl 0(%rdi), %eax
  xorl %ecx, %ecx
  cpuid
  movl %eax, 4(%rdi)
  movl %ebx, 8(%rdi)
  movl %ecx, 12(%rdi)
  movl %edx, 16(%rdi)
  addl $20, %edi
  cmpl %ebp, %edi
  jb cpuid_next

  /* kvmclock tells the frequency of the TSC. It is switched on until KVM has filled the
     page and then off again, so that the host never writes into a running payload. */
  cmpl $0x4b4d564b, boot_cpuid_hypervisor + 8 /* "KVMK" of "KVMKVMKVM" */
  jne enter_ring3
  btl $KVM_FEATURE_CLOCKSOURCE2_BIT, boot_cpuid_kvm_features + 4
  jnc enter_ring3
  movl $MSR_KVM_SYSTEM_TIME_NEW, %ecx
  movl $boot_pvclock + 1, %eax
  xorl %edx, %edx
  wrmsr
  movl $1000, %ebx
pvclock_wait:
  cmpl $0, boot_pvclock + PVCLOCK_MUL
  jne pvclock_off
  subl $1, %ebx
  jnz pvclock_wait
pvclock_off:
  xorl %eax, %eax
  wrmsr

enter_ring3:
  testl $RFLAGS_IF, boot_rflags
  jz 1f
  movb $0xff, %al /* firmware may have left the 8259s open */
  outb %al, $0x21
  outb %al, $0xa1
1:
  movl $SEL_RING3_DATA, %eax
  pushq %rax
  movl $ring3_stack_top - 8, %eax /* as if RuntimeMain had been called */
  pushq %rax
  movl boot_rflags, %eax
  pushq %rax
  movl $SEL_RING3_CODE, %eax
  pushq %rax
  movl $RuntimeMain, %eax
  pushq %rax
  iretq

  .data
  .balign 16
gdt:
  .quad 0
  .quad 0x00af9b000000ffff /* ring 0 code, 64 bit */
  .quad 0x00cf93000000ffff /* ring 0 data */
  .quad 0x00cff3000000ffff /* ring 3 data */
  .quad 0x00affb000000ffff /* ring 3 code, 64 bit */
gdt_tss:
  .quad 0x0000890000000000 + TSS_BYTES - 1
  .quad 0
gdt_end:

gdt_pointer:
  .word gdt_end - gdt - 1
  .quad gdt

idt_pointer:
  .word 256 * 16 - 1
  .quad boot_idt

  /* Ring 3 cannot enable interrupts later where IOPL is lost: interrupts.c overrides this. */
  .weak boot_rflags
boot_rflags:
  .quad RFLAGS_IOPL3

  /* Leaf, then eax, ebx, ecx, edx as ring 0 saw them (subleaf 0). */
  .balign 4
  .globl boot_cpuid, boot_cpuid_end
boot_cpuid:
  .long 0x0, 0, 0, 0, 0
  .long 0x1, 0, 0, 0, 0
  .long 0x15, 0, 0, 0, 0
boot_cpuid_hypervisor:
  .long 0x40000000, 0, 0, 0, 0
boot_cpuid_kvm_features:
  .long KVM_FEATURES_LEAF, 0, 0, 0, 0
  .long 0x40000010, 0, 0, 0, 0
boot_cpuid_end:

  .balign 4096
pml4:
  .quad boot_pdpt + PAGE_TABLE_ENTRY
  .fill 511, 8, 0
  .globl boot_pdpt
boot_pdpt:
  .quad low_pds + PAGE_TABLE_ENTRY
  .quad low_pds + 0x1000 + PAGE_TABLE_ENTRY
  .quad low_pds + 0x2000 + PAGE_TABLE_ENTRY
  .quad low_pds + 0x3000 + PAGE_TABLE_ENTRY
  .fill 508, 8, 0
low_pds:
  .set gpa, 0
  .rept 2048
  .quad gpa + PAGE_2M_ENTRY
  .set gpa, gpa + 0x200000
  .endr

  .bss
  .balign 4096
  .globl boot_idt
boot_idt:
  .skip 4096
tss:
  .skip TSS_BYTES
  .balign 64
  .globl boot_pvclock
boot_pvclock:
  .skip 64
  .globl boot_start_info, boot_tsc
boot_start_info:
  .skip 8
boot_tsc:
  .skip 8
  .balign 16
  .skip 4096
ring0_stack_top:
  .skip 16384
ring3_stack_top:

  .section .note.GNU-stack, "", @progbits
