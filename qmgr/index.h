/*
 * index: all entries in the order of their IDs, which is the order of their arrival.
 *
 * A list of sorted pieces: to find, add and remove is a search in two steps and a short move; to go
 * on from an ID costs what is gone over. About 20 bytes an entry. Owns no entry.
 */
#pragma once
#include "lib/base/str.h"

struct entry;
struct index_at { /* a place; not valid after the next index_add() or index_del() */
    size_t piece, i;
};

struct entry *index_find(struct str id);
int index_add(struct entry *entry); /* -1 only when memory is out */
void index_del(struct entry *entry);
size_t index_count(void);
/* The place of the first entry whose ID is greater than this (or has it as its beginning). */
struct index_at index_after(struct str id);
/* The entry there, and on to the next; NULL at the end. */
struct entry *index_next(struct index_at *at);
