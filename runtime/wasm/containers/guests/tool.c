/* The program that the tests run in containers: one subcommand for each thing a container gives it. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int fail(const char *what)
{
    printf("%s: %s\n", what, strerror(errno));
    return 1;
}

static int copy(FILE *from, FILE *to)
{
    char buffer[4096];
    size_t n;
    while ((n = fread(buffer, 1, sizeof buffer, from)) > 0)
        if (fwrite(buffer, 1, n, to) != n)
            return fail("write");
    return 0;
}

int main(int argc, char **argv)
{
    const char *command = argc > 1 ? argv[1] : "";
    const char *argument = argc > 2 ? argv[2] : "";
    if (!strcmp(command, "args")) {
        for (int i = 0; i < argc; i++)
            printf("[%s]", argv[i]);
        return 0;
    }
    if (!strcmp(command, "env")) {
        const char *value = getenv(argument);
        printf("%s", value ? value : "(unset)");
        return 0;
    }
    if (!strcmp(command, "cat"))
        return copy(stdin, stdout);
    if (!strcmp(command, "warn")) {
        fprintf(stderr, "%s", argument);
        return 0;
    }
    if (!strcmp(command, "read")) {
        FILE *file = fopen(argument, "r");
        return file ? copy(file, stdout) : fail(argument);
    }
    if (!strcmp(command, "write")) {
        FILE *file = fopen(argument, "w");
        if (!file || fputs(argc > 3 ? argv[3] : "", file) < 0 || fclose(file) != 0)
            return fail(argument);
        return 0;
    }
    if (!strcmp(command, "move"))
        return argc > 3 && rename(argument, argv[3]) == 0 ? 0 : fail(argument);
    if (!strcmp(command, "link"))
        return argc > 3 && link(argument, argv[3]) == 0 ? 0 : fail(argument);
    if (!strcmp(command, "symlink"))
        return symlink("target", argument) == 0 ? 0 : fail(argument);
    if (!strcmp(command, "mkdir"))
        return mkdir(argument, 0755) == 0 ? 0 : fail(argument);
    if (!strcmp(command, "rmdir"))
        return rmdir(argument) == 0 ? 0 : fail(argument);
    if (!strcmp(command, "unlink"))
        return unlink(argument) == 0 ? 0 : fail(argument);
    if (!strcmp(command, "touch"))
        return utimensat(AT_FDCWD, argument, NULL, 0) == 0 ? 0 : fail(argument);
    if (!strcmp(command, "touch-open"))
        return futimens(open(argument, O_RDONLY), NULL) == 0 ? 0 : fail(argument);
    if (!strcmp(command, "exit"))
        exit(atoi(argument));
    if (!strcmp(command, "trap"))
        __builtin_trap();
    if (!strcmp(command, "grow")) {
        long mib = atol(argument);
        for (long i = 0; i < mib; i++) {
            // Volatile: memory that nobody reads would not be asked for at all.
            volatile char *block = malloc(1 << 20);
            if (!block)
                return fail("malloc");
            for (long at = 0; at < 1 << 20; at += 4096)
                block[at] = 1;
        }
        printf("grown");
        return 0;
    }
    if (!strcmp(command, "spin")) {
        puts("ready");
        fflush(stdout);
        for (;;)
            __asm__ volatile("");
    }
    printf("unknown: %s\n", command);
    return 2;
}
