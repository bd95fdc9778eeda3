/* Starts a program once and lets it run any number of times: preloaded, it waits where the program's main would
   begin, for a working directory and arguments by the socket whose number is in STARTED_ONCE, with three
   descriptors, and has a child go on with them. It answers each with the child's wait status, four bytes.

   Of the tenth of a second that ffprobe takes for a small file, nine parts are its 215 libraries being linked. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

typedef int (*Main)(int, char **, char **);

static Main whole;

static int serve(int count, char **given, char **environment) {
    static char words[1 << 16];
    static char *arguments[sizeof words / 2];
    int socket = atoi(getenv("STARTED_ONCE"));
    for (;;) {
        union {
            struct cmsghdr header;
            char space[CMSG_SPACE(3 * sizeof(int))];
        } control;
        struct iovec text = {words, sizeof words - 1};
        struct msghdr message = {.msg_iov = &text, .msg_iovlen = 1, .msg_control = &control,
                                 .msg_controllen = sizeof control};
        ssize_t length = recvmsg(socket, &message, 0);
        if (length < 0 && errno == EINTR) continue;
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        if (length <= 0 || message.msg_flags & (MSG_TRUNC | MSG_CTRUNC) || header == NULL ||
            header->cmsg_len != CMSG_LEN(3 * sizeof(int)))
            _exit(length == 0 ? 0 : 1);
        int files[3];
        memcpy(files, CMSG_DATA(header), sizeof files);
        words[length] = 0;
        pid_t child = fork();
        if (child == 0) {
            for (int to = 0; to < 3; to++) dup2(files[to], to);
            for (int file = 0; file < 3; file++) close(files[file]);
            close(socket);
            int found = 0;
            for (char *word = words + strlen(words) + 1; word < words + length; word += strlen(word) + 1)
                arguments[found++] = word;
            arguments[found] = NULL;
            if (chdir(words) != 0) _exit(126);
            exit(whole(found, arguments, environment));
        }
        for (int file = 0; file < 3; file++) close(files[file]);
        int status = 1 << 8;
        while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
        if (send(socket, &status, sizeof status, MSG_NOSIGNAL) != sizeof status) _exit(1);
    }
}

int __libc_start_main(Main main, int count, char **arguments, void (*init)(void), void (*fini)(void),
                      void (*loader_fini)(void), void *stack_end) {
    int (*start)(Main, int, char **, void (*)(void), void (*)(void), void (*)(void), void *) =
        dlsym(RTLD_NEXT, "__libc_start_main");
    whole = main;
    return start(serve, count, arguments, init, fini, loader_fini, stack_end);
}
