/*
 * fetch: what FETCH can ask for (RFC 3501 6.4.5), parsed, and each answered.
 *
 * Limits: ICELL_FETCH_MAX items, ICELL_SECTION_MAX numbers in a section, ICELL_FIELDS_MAX names of
 * header fields; a structure of at most ICELL_STRUCTURE_MAX bytes is sent, a part of
 * at most ICELL_BINARY_MAX bytes is decoded.
 */
#pragma once
#include "imapd/cell/icell.h"

enum {
    ICELL_FETCH_MAX = 64,
    ICELL_SECTION_MAX = 2 * MIME_DEPTH_MAX,
    ICELL_FIELDS_MAX = 200,
    ICELL_STRUCTURE_MAX = 64 * 1024 * 1024,
    ICELL_BINARY_MAX = 60 * 1024 * 1024, /* of a part that is decoded */
};

enum icell_item_kind {
    /* Those up to MODSEQ are in the record: fetch_plain.c. */
    ICELL_ITEM_FLAGS,
    ICELL_ITEM_UID,
    ICELL_ITEM_INTERNALDATE,
    ICELL_ITEM_SIZE,
    ICELL_ITEM_MODSEQ,
    ICELL_ITEM_SAVEDATE, /* RFC 8514 */
    ICELL_ITEM_ENVELOPE,
    ICELL_ITEM_BODY, /* the structure without extensions */
    ICELL_ITEM_BODYSTRUCTURE,
    ICELL_ITEM_EMAILID, /* RFC 8474 */
    ICELL_ITEM_THREADID,
    ICELL_ITEM_PREVIEW, /* RFC 8970 */
    ICELL_ITEM_BINARY,  /* RFC 3516 */
    ICELL_ITEM_BINARY_SIZE,
    ICELL_ITEM_SECTION, /* BODY[...], RFC822... */
};
enum icell_section_text {
    ICELL_WHOLE,
    ICELL_HEADER,
    ICELL_FIELDS,
    ICELL_FIELDS_NOT,
    ICELL_TEXT,
    ICELL_MIME,
};

struct icell_section {
    uint32_t *path;
    size_t npath;
    enum icell_section_text text;
    struct str *fields;
    size_t nfields;
    bool partial;
    uint64_t start, count;
};

struct icell_item {
    enum icell_item_kind kind;
    const char *name; /* as the answer calls it; NULL: from the section */
    struct icell_section section;
    bool peek;
    bool lazy; /* PREVIEW: only if it is known already */
};

struct icell_fetch {
    struct icell_item items[ICELL_FETCH_MAX];
    size_t n;
    bool changed_since; /* RFC 7162 3.1.4.1 */
    uint64_t since;
    bool vanished; /* RFC 7162 3.2.6 */
};

/* The items behind the sequence set; with UID FETCH, UID is added. */
int icell_fetch_parse(struct icell *ic, struct cursor *c, struct icell_fetch *f_r);
bool icell_fetch_has(const struct icell_fetch *f, enum icell_item_kind kind);

/* Answers as many of the n messages as need nothing but their records, from the first on; how many.
 */
size_t icell_fetch_plain(struct icell *ic, const struct icell_fetch *f, const size_t *at, size_t n);

/* What a section is: a range of the message, or (fields) bytes of their own. */
struct icell_found {
    bool range;
    uint64_t from, to;
    struct str bytes; /* in room */
};
/* section.c: find it in the loaded message, of which size is known. false: there is no such part.
 */
bool icell_section_find(struct icell *ic, const struct icell_section *s, uint64_t size,
                        struct buf *room, struct icell_found *found_r);
/* The fields of a header that the section names, and the empty line if blank: a message without it
 * has none here either (RFC 3501 6.4.5). */
void icell_section_fields(const struct icell_section *s, struct str header, bool blank,
                          struct buf *room);
bool icell_ends_blank(struct str header);
/* Whether the fields that are kept of every message are enough. */
bool icell_section_is_hot(const struct icell_section *s);
/* Whether the header alone is enough to find it. */
bool icell_section_in_header(const struct icell_section *s);
/* The content of a part (of the message: all of it) with its transfer encoding undone, appended to
 * out. 0; 1: there is no such part; -1 with ic->cmd.unknown_cte, or because it is too large. */
int icell_section_binary(struct icell *ic, const struct icell_section *s, uint64_t size,
                         struct buf *out, struct err *e);
/* "BODY[1.2.HEADER.FIELDS (A B)]<0>". */
void icell_section_name(struct buf *out, const char *word, const struct icell_section *s);

/* envelope.c, structure.c */
void icell_envelope(struct buf *out, struct arena *arena, struct str header);
/* "(M...)": what the message's bytes say, so that a copy has it, too. */
int icell_emailid(struct buf *out, struct mailfile *f, struct err *e);
void icell_preview(struct buf *out, const struct mime *m, const struct mailfile *f);
struct icell_structure_how {
    bool extensions;
    bool utf8; /* encoded values of parameters are decoded (RFC 9051 7.5.2) */
};
void icell_structure(struct buf *out, struct arena *arena, const struct mime *m,
                     const struct mailfile *f, struct icell_structure_how how);
