/*
 * args: the arguments of a command, by the grammar of RFC 3501 9.
 *
 * All take from a cursor over the command's text, in which literals lie in place. Text that is
 * given back points into it, or (unescaped) into the arena. 0, or -1 and the cursor where it was in
 * the way: the command is then BAD. A NUL is never part of an argument (catalogue G1): the reader
 * refused it.
 */
#pragma once
#include "imapd/cell/icell.h"

bool icell_arg_space(struct cursor *c); /* exactly one */
bool icell_arg_end(const struct cursor *c);
bool icell_atom_char(char c);
int icell_arg_atom(struct cursor *c, struct str *s_r);
int icell_arg_string(struct cursor *c, struct arena *arena,
                     struct str *s_r); /* quoted or literal */
int icell_arg_astring(struct cursor *c, struct arena *arena, struct str *s_r);
/* As astring, with '%' and '*' allowed in the atom. */
int icell_arg_list_mailbox(struct cursor *c, struct arena *arena, struct str *s_r);
int icell_arg_number(struct cursor *c, uint64_t max, uint64_t *n_r);
/* " mailbox" behind a command's name, as it lies on disk; INBOX in any case becomes "INBOX". What
 * cannot be a name stays as it is, and folder_check() refuses it. Sets cmd.oldname. */
int icell_arg_mailbox(struct icell *ic, struct cursor *c, struct str *name_r);

/* "(\Seen Keyword ...)" or without parentheses; unknown system flags are an error, \Recent is
 * passed over. Keywords are kept as names, at most KEYWORDS_MAX. */
struct icell_flags {
    uint8_t flags;
    struct str keyword[KEYWORDS_MAX];
    size_t nkeywords;
    bool too_many;
};
int icell_arg_flags(struct cursor *c, bool parens_needed, struct icell_flags *f_r);
/* Letters of the keywords in mb, added when add is set. ERR_LIMIT: no free letter. */
int icell_flags_bits(struct mailbox *mb, const struct icell_flags *f, bool add, uint32_t *bits_r,
                     struct err *e);

/* ---- output ---- */

/* A string: quoted when that can be, else a literal; NIL when s.p is NULL. */
void icell_put_nstring(struct buf *out, struct str s);
void icell_put_astring(struct buf *out, struct str s);
/* UTF-8 without controls: quoted when it is not ASCII (RFC 9051 4.3). */
void icell_put_utf8(struct buf *out, struct str s);
/* The name of a mailbox as this client knows it, added to out; and the same as an argument. */
void icell_shown_name(const struct icell *ic, struct buf *out, struct str name);
/* The same in memory of the command; as it lies on disk when that is out. */
struct str icell_shown(struct icell *ic, struct str name);
void icell_put_mailbox(const struct icell *ic, struct buf *out, struct str name);
