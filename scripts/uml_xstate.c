/*
 * For User Mode Linux 6.1 on processors whose register sets are larger than it knows (AMX): scripts/ktls.sh preloads it.
 *
 * It keeps the first 2.7 kB of a process's XSAVE area and gives them back by PTRACE_SETREGSET, which Linux refuses with
 * EFAULT unless the area is as long as the processor's. What is beyond is added here, in its initial state: nothing that
 * runs in there uses it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

#define NT_X86_XSTATE 0x202
/* Which components are not in their initial state: Intel's manual, volume 1, 13.4.2. */
#define XSTATE_BV 512
#define AMX (3ull << 17)

long ptrace(enum __ptrace_request request, ...)
{
    static long (*original)(enum __ptrace_request, ...);
    static uint8_t area[1 << 16] __attribute__((aligned(64)));
    static size_t length;
    va_list arguments;
    va_start(arguments, request);
    pid_t pid = va_arg(arguments, pid_t);
    void *addr = va_arg(arguments, void *), *data = va_arg(arguments, void *);
    va_end(arguments);
    if (!original)
        original = dlsym(RTLD_NEXT, "ptrace");
    struct iovec *given = data;
    if (request != PTRACE_SETREGSET || (uintptr_t)addr != NT_X86_XSTATE || given->iov_len > sizeof area)
        return original(request, pid, addr, data);
    if (!length) {
        struct iovec whole = {area, sizeof area};
        if (original(PTRACE_GETREGSET, pid, addr, &whole) < 0)
            return -1;
        length = whole.iov_len;
        memset(area, 0, sizeof area);
    }
    if (given->iov_len >= length || given->iov_len < XSTATE_BV + 8)
        return original(request, pid, addr, data);
    memcpy(area, given->iov_base, given->iov_len);
    uint64_t present;
    memcpy(&present, area + XSTATE_BV, sizeof present);
    present &= ~AMX;
    memcpy(area + XSTATE_BV, &present, sizeof present);
    struct iovec whole = {area, length};
    return original(request, pid, addr, &whole);
}
