#include "lib/log/log.h"
#include "qmgr/qmgr.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * A rename is two changes, one in each directory, and of two that are not synced a power cut may
 * leave the second alone: no name at all. So a move is a second name, a sync of the directory that
 * it is in, and only then the removal of the first. Moves into cur/ are synced some seconds later,
 * all of a directory at once; a start after a crash undoes what is half made.
 */
enum {
    CURS = 1024, /* cur/XX */
    DIR_NEW = CURS,
    DIR_HOLD,
    DIRS,
    SYNC_MS = 5000, /* after a change */
    SYNCS_A_TURN = 4,
    SYNC_PAUSE_MS = 10
};

/* A message that came into a directory, and has its first name still. */
struct moved {
    struct moved *next;
    char id[ID_LEN];
    uint8_t from; /* enum place */
};

static struct {
    struct moved *into[DIRS];
    unsigned char changed[DIRS / 8 + 1]; /* directories to be synced */
    struct loop_timer timer;
} the;

static unsigned
number_of(const struct entry *entry, enum place place)
{
    return place == PLACE_NEW ? DIR_NEW
           : place == PLACE_HOLD
               ? DIR_HOLD
               : id_value(entry->id[ID_LEN - 2]) << 5 | id_value(entry->id[ID_LEN - 1]);
}

static int
open_place(const struct entry *entry, enum place place)
{
    return place == PLACE_NEW    ? qmgr.new
           : place == PLACE_HOLD ? qmgr.hold
                                 : store_subdir(qmgr.cur, entry->id, false);
}

static void
close_place(enum place place, int dir)
{
    if (place == PLACE_CUR && dir >= 0)
        close(dir);
}

int
place_open(const struct entry *entry)
{
    return open_place(entry, entry->place);
}

void
place_close(const struct entry *entry, int dir)
{
    close_place(entry->place, dir);
}

/* ---- what is not durable yet ---- */

static bool
is_changed(unsigned number)
{
    return the.changed[number / 8] & 1u << number % 8;
}

static void
set_changed(unsigned number, bool changed)
{
    unsigned char bit = (unsigned char)(1u << number % 8);
    the.changed[number / 8] &= (unsigned char)~bit;
    if (changed)
        the.changed[number / 8] |= bit;
}

static void sync_some(struct loop_timer *t);

static void
note(unsigned number)
{
    set_changed(number, true);
    if (!loop_timer_is_set(&the.timer)) {
        the.timer.fire = sync_some;
        loop_timer_set(&qmgr.loop, &the.timer, now_ms() + SYNC_MS);
    }
}

static int
remove_name(const struct entry *entry, enum place place)
{
    const char *name = store_name(entry);
    int dir = open_place(entry, place);
    int ok = dir < 0 ? -1 : unlinkat(dir, name, 0);
    if (ok < 0 && errno == ENOENT)
        ok = 0;
    if (ok < 0)
        log_error("cannot remove %s: %s", name, strerror(errno));
    else
        note(number_of(entry, place));
    close_place(place, dir);
    return ok;
}

/* The names in this directory are durable: what came into it needs no other. */
static void
drop_first_names(unsigned number)
{
    struct moved **at = &the.into[number], *m;
    while ((m = *at)) {
        struct entry *entry = index_find(str_of(m->id, ID_LEN));
        if (entry && remove_name(entry, m->from) < 0) {
            note(number); /* again, later */
            at = &m->next;
            continue;
        }
        if (entry)
            entry->flags &= (uint8_t)~ENTRY_TWO;
        *at = m->next;
        free(m);
    }
}

/* -1: it cannot be opened now, and is synced later. */
static int
sync_number(unsigned number)
{
    char id[ID_LEN] = {0};
    id[ID_LEN - 2] = ID_LETTERS[number >> 5 & 31];
    id[ID_LEN - 1] = ID_LETTERS[number & 31];
    int dir = number == DIR_NEW    ? qmgr.new
              : number == DIR_HOLD ? qmgr.hold
                                   : store_subdir(qmgr.cur, id, false);
    set_changed(number, false);
    if (dir < 0 && errno == ENOENT) /* nothing was ever there */
        return 0;
    if (dir < 0) {
        note(number);
        return -1;
    }
    store_sync(dir);
    if (number < CURS)
        close(dir);
    drop_first_names(number);
    return 0;
}

/* A few directories in a turn: what was moved has one name then, and what was removed does not come
 * back after a power cut. */
static void
sync_some(struct loop_timer *t)
{
    int left = SYNCS_A_TURN;
    for (unsigned n = DIRS; n-- > 0 && left;)
        if (is_changed(n)) {
            (void)sync_number(n);
            left--;
        }
    if (left == 0)
        loop_timer_set(&qmgr.loop, t, now_ms() + SYNC_PAUSE_MS);
}

void
place_new_syncing(void)
{
    set_changed(DIR_NEW, false);
}

int
place_sync_new(void)
{
    place_new_syncing();
    return fsync(qmgr.new);
}

void
place_new_changed(void)
{
    note(DIR_NEW);
}

void
place_sync(void)
{
    (void)sync_number(DIR_NEW);
    (void)sync_number(DIR_HOLD); /* what was released is held no more, whatever comes */
}

void
place_settle(void)
{
    for (unsigned n = 0; n < DIRS; n++)
        if (the.into[n])
            (void)sync_number(n);
}

/* ---- moves ---- */

static int
give_second_name(struct entry *entry, int to, enum place place)
{
    const char *name = store_name(entry);
    unsigned number = number_of(entry, place);
    struct moved *m = malloc(sizeof *m);
    int from = place_open(entry);
    int ok = from < 0 || !m ? -1 : linkat(from, name, to, name, 0);
    place_close(entry, from);
    if (ok < 0) {
        free(m);
        return -1;
    }
    *m = (struct moved){.next = the.into[number], .from = entry->place};
    memcpy(m->id, entry->id, ID_LEN);
    the.into[number] = m;
    note(number);
    entry->flags |= ENTRY_TWO;
    entry->place = (uint8_t)place;
    return 0;
}

int
place_defer(struct entry *entry)
{
    const char *name = store_name(entry);
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = clock_to_wall_s(entry->due_s)}};
    int dir = store_subdir(qmgr.cur, entry->id, true);
    if (dir < 0)
        return -1;
    int ok = entry->place == PLACE_NEW ? give_second_name(entry, dir, PLACE_CUR) : 0;
    if (ok == 0)
        ok = utimensat(dir, name, times, AT_SYMLINK_NOFOLLOW);
    close(dir);
    return ok;
}

/* Before anything else is done with a message it has one name. */
static int
settle(const struct entry *entry)
{
    if (entry->flags & ENTRY_TWO && sync_number(number_of(entry, entry->place)) < 0)
        return -1;
    return entry->flags & ENTRY_TWO ? -1 : 0;
}

static int
move(struct entry *entry, int to, enum place place)
{
    return settle(entry) < 0 ? -1 : give_second_name(entry, to, place);
}

int
place_hold(struct entry *entry)
{
    return move(entry, qmgr.hold, PLACE_HOLD);
}

/* Into new/, as if it had just come: one directory to sync, however many are released. */
int
place_release(struct entry *entry)
{
    return move(entry, qmgr.new, PLACE_NEW);
}

int
place_remove(struct entry *entry)
{
    return settle(entry) < 0 ? -1 : remove_name(entry, entry->place);
}

bool
place_drop_twins(const struct entry *kept, uint64_t inode)
{
    static const enum place places[] = {PLACE_NEW, PLACE_CUR, PLACE_HOLD};
    bool dropped = false;
    struct stat st;
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        if (places[i] == kept->place)
            continue;
        int dir = open_place(kept, places[i]);
        if (dir >= 0 && fstatat(dir, store_name(kept), &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            st.st_ino == inode && remove_name(kept, places[i]) == 0)
            dropped = true;
        close_place(places[i], dir);
    }
    return dropped;
}

int
place_quarantine(struct entry *entry, const char *why)
{
    char plain[ID_LEN + 3];
    snprintf(plain, sizeof plain, "%.*s.%c", ID_LEN, entry->id, entry->origin);
    int from = settle(entry) < 0 ? -1 : place_open(entry);
    int ok = from < 0 ? -1 : linkat(from, store_name(entry), qmgr.corrupt, plain, 0);
    place_close(entry, from);
    if (ok < 0 && errno != EEXIST) { /* EEXIST: a crash came between the two */
        log_error("%.*s: %s: cannot be moved to corrupt/: %s", ID_LEN, entry->id, why,
                  strerror(errno));
        return -1;
    }
    store_sync(qmgr.corrupt);
    log_error("%.*s: %s: moved to corrupt/", ID_LEN, entry->id, why);
    return place_remove(entry);
}
