// A stand-in for the system's name service, loaded before the C library (LD_PRELOAD).
//
// The name of a user or group is the name of a file in DIRECTORY/names: it holds the number of the error that the
// lookup returns, and a lookup waits while the file is a FIFO without a writer. Other names go to the C library.
// Programs that read /etc/nsswitch.conf get DIRECTORY/nsswitch.conf; the C library reads its own.

#include <cerrno>
#include <cstdarg>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <string>
#include <sys/types.h>
#include <unistd.h>

static const char NSSWITCH[] = "/etc/nsswitch.conf";
static const char REPLACED[] = DIRECTORY "/nsswitch.conf";

template <typename Function> static Function *next(Function *, const char *name) {
    return reinterpret_cast<Function *>(dlsym(RTLD_NEXT, name));
}

// Returns the error for a name, or -1 for a name without a file.
static int scripted(const char *name) {
    if (name[0] == '\0' || strchr(name, '/') != nullptr)
        return -1;
    const int before = errno;
    const int file = open((std::string(DIRECTORY "/names/") + name).c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        errno = before;
        return -1;
    }
    char text[16] = {};
    const ssize_t octets = read(file, text, sizeof text - 1);
    close(file);
    errno = before;
    return octets <= 0 ? EIO : atoi(text);
}

extern "C" int getpwnam_r(const char *name, passwd *entry, char *buffer, size_t octets, passwd **found) {
    const int error = scripted(name);
    if (error < 0)
        return next(getpwnam_r, "getpwnam_r")(name, entry, buffer, octets, found);
    *found = nullptr;
    return error;
}

extern "C" passwd *getpwnam(const char *name) {
    const int error = scripted(name);
    if (error < 0)
        return next(getpwnam, "getpwnam")(name);
    errno = error;
    return nullptr;
}

extern "C" int getgrnam_r(const char *name, group *entry, char *buffer, size_t octets, group **found) {
    const int error = scripted(name);
    if (error < 0)
        return next(getgrnam_r, "getgrnam_r")(name, entry, buffer, octets, found);
    *found = nullptr;
    return error;
}

extern "C" int getpwuid_r(uid_t uid, passwd *entry, char *buffer, size_t octets, passwd **found) {
    const int error = scripted(("uid " + std::to_string(uid)).c_str());
    if (error < 0)
        return next(getpwuid_r, "getpwuid_r")(uid, entry, buffer, octets, found);
    *found = nullptr;
    return error;
}

// Python opens files with open64.
extern "C" int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    const char *opened = strcmp(path, NSSWITCH) == 0 ? REPLACED : path;
    return next(open64, "open64")(opened, flags, mode);
}
