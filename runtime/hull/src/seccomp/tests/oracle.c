/* Answers questions about libseccomp, one a line:
 *   number ARCH NAME                        its number there, or a negative one
 *   begin DEFAULT ARCH..                    a new filter; the native architecture is always in
 *   rule ACTION NAME COUNT {INDEX OP A B}.. as runc and crun add it
 *   end                                     the program: "CODE JT JF K," for each instruction
 * Numbers are decimal. */
#include <errno.h>
#include <inttypes.h>
#include <linux/filter.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uint32_t fallback;
static scmp_filter_ctx filter;

static void fail(const char *what, int rc)
{
    printf("error %s %d\n", what, rc);
    fflush(stdout);
    exit(1);
}

static void add(uint32_t action, int number, unsigned count, struct scmp_arg_cmp *args)
{
    int rc = seccomp_rule_add_array(filter, action, number, count, args);
    /* EEXIST: the same rule again; EDOM: no architecture of the filter has the call. */
    if (rc < 0 && rc != -EEXIST && rc != -EDOM)
        fail("rule", rc);
}

static void rule(char *rest)
{
    struct scmp_arg_cmp args[64];
    int seen[6] = {0}, repeated = 0;
    uint32_t action = strtoul(strtok(rest, " "), NULL, 10);
    int number = seccomp_syscall_resolve_name(strtok(NULL, " "));
    unsigned count = strtoul(strtok(NULL, " "), NULL, 10);
    if (number == __NR_SCMP_ERROR || action == fallback)
        return;
    for (unsigned i = 0; i < count; i++) {
        args[i].arg = strtoul(strtok(NULL, " "), NULL, 10);
        args[i].op = strtoul(strtok(NULL, " "), NULL, 10);
        args[i].datum_a = strtoull(strtok(NULL, " "), NULL, 10);
        args[i].datum_b = strtoull(strtok(NULL, " "), NULL, 10);
        repeated |= seen[args[i].arg]++;
    }
    if (!repeated)
        add(action, number, count, args);
    else
        for (unsigned i = 0; i < count; i++)
            add(action, number, 1, &args[i]);
}

static void program(void)
{
    struct sock_filter one;
    FILE *file = tmpfile();
    int rc = seccomp_export_bpf(filter, fileno(file));
    if (rc < 0)
        fail("export", rc);
    rewind(file);
    while (fread(&one, sizeof one, 1, file) == 1)
        printf("%u %u %u %" PRIu32 ",", one.code, one.jt, one.jf, one.k);
    printf("\n");
    fclose(file);
    seccomp_release(filter);
}

int main(void)
{
    char *line = NULL;
    size_t size = 0;
    while (getline(&line, &size, stdin) > 0) {
        line[strcspn(line, "\n")] = 0;
        if (!strncmp(line, "number ", 7)) {
            uint32_t arch = seccomp_arch_resolve_name(strtok(line + 7, " "));
            printf("%d\n", seccomp_syscall_resolve_name_arch(arch, strtok(NULL, " ")));
        } else if (!strncmp(line, "begin ", 6)) {
            fallback = strtoul(strtok(line + 6, " "), NULL, 10);
            filter = seccomp_init(fallback);
            if (!filter)
                fail("init", 0);
            seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
            for (char *name; (name = strtok(NULL, " "));) {
                int rc = seccomp_arch_add(filter, seccomp_arch_resolve_name(name));
                if (rc < 0 && rc != -EEXIST)
                    fail("arch", rc);
            }
        } else if (!strncmp(line, "rule ", 5)) {
            rule(line + 5);
        } else if (!strcmp(line, "end")) {
            program();
        }
        fflush(stdout);
    }
    return 0;
}
