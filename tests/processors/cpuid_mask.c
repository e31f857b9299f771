/* Hides instruction sets from a process, so that its libraries take the kernels of an older processor at full speed.
 *
 * Preloaded (LD_PRELOAD). The kernel makes CPUID fault (arch_prctl ARCH_SET_CPUID, on Linux, where /proc/cpuinfo lists
 * cpuid_fault); the handler executes it and clears the bits of AVX-512, AVX-VNNI and AMX. What remains is AVX2 without VNNI.
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_SET_CPUID 0x1012

typedef int (*sigaction_function)(int, const struct sigaction *, struct sigaction *);

/* what the program itself wants done when memory is accessed wrongly: Python's faulthandler, for one */
static struct sigaction of_program;

static int call_sigaction(int number, const struct sigaction *action, struct sigaction *old) {
    static sigaction_function next;
    if (!next) next = (sigaction_function)dlsym(RTLD_NEXT, "sigaction");
    return next(number, action, old);
}

static void hide(unsigned leaf, unsigned subleaf, unsigned *eax, unsigned *ebx, unsigned *ecx, unsigned *edx) {
    if (leaf == 7 && subleaf == 0) {
        /* AVX512 F, DQ, IFMA, PF, ER, CD, BW, VL */
        *ebx &= ~(1u << 16 | 1u << 17 | 1u << 21 | 1u << 26 | 1u << 27 | 1u << 28 | 1u << 30 | 1u << 31);
        /* AVX512 VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ; GFNI */
        *ecx &= ~(1u << 1 | 1u << 6 | 1u << 8 | 1u << 11 | 1u << 12 | 1u << 14);
        /* AVX512 4VNNIW, 4FMAPS, VP2INTERSECT, FP16; AMX BF16, TILE, INT8 */
        *edx &= ~(1u << 2 | 1u << 3 | 1u << 8 | 1u << 22 | 1u << 23 | 1u << 24 | 1u << 25);
    }
    if (leaf == 7 && subleaf == 1) {
        /* AVX-VNNI, AVX512 BF16, AMX FP16, AVX-IFMA */
        *eax &= ~(1u << 4 | 1u << 5 | 1u << 21 | 1u << 23);
        /* AVX-VNNI INT8, NE-CONVERT, AVX-VNNI INT16, AVX10 */
        *edx &= ~(1u << 4 | 1u << 5 | 1u << 10 | 1u << 19);
    }
}

static void on_fault(int number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *code = (const unsigned char *)registers[REG_RIP];
    /* a general protection fault has no address; reading the code of another fault might fault again */
    if (info->si_code == SI_KERNEL && code[0] == 0x0f && code[1] == 0xa2) {
        unsigned leaf = registers[REG_RAX], subleaf = registers[REG_RCX], eax, ebx, ecx, edx;
        syscall(SYS_arch_prctl, ARCH_SET_CPUID, 1);
        __cpuid_count(leaf, subleaf, eax, ebx, ecx, edx);
        syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0);
        hide(leaf, subleaf, &eax, &ebx, &ecx, &edx);
        registers[REG_RAX] = eax, registers[REG_RBX] = ebx, registers[REG_RCX] = ecx, registers[REG_RDX] = edx;
        registers[REG_RIP] += 2;
        return;
    }
    if (of_program.sa_flags & SA_SIGINFO) {
        of_program.sa_sigaction(number, info, context);
    } else if (of_program.sa_handler != SIG_DFL && of_program.sa_handler != SIG_IGN) {
        of_program.sa_handler(number);
    } else {
        signal(number, SIG_DFL);
        raise(number);
    }
}

int sigaction(int number, const struct sigaction *action, struct sigaction *old) {
    if (number != SIGSEGV) return call_sigaction(number, action, old);
    if (old) *old = of_program;
    if (action) of_program = *action;
    return 0;
}

__attribute__((constructor)) static void start(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
    call_sigaction(SIGSEGV, &action, NULL);
    if (syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0)) {
        fputs("cpuid_mask: this kernel or processor cannot make CPUID fault (see cpuid_fault in /proc/cpuinfo)\n", stderr);
        _exit(3);
    }
}
