/*
 * image: a listener's program in huge pages, which its sessions find mapped.
 *
 * tlsd only, first of all, when there is little else in memory. What a program and its libraries
 * have as code and constants each forked session would fault in again, page by page, and give back
 * when it ends: for OpenSSL that is a thousand pages a connection. In huge pages it is three
 * entries, copied at fork(). So these parts are copied into such pages, which then take their
 * place; they are never writable and executable at once. Where the kernel has no huge page to give,
 * or does not allow it, all stays as it was: sessions are slower, and nothing else.
 *
 * The program is to be linked for it: static, with its segments at 2 MiB (see the Makefile).
 */
#pragma once

void image_enlarge(void);
