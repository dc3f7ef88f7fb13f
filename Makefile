# Bulkhead: one Makefile. Targets: all check check-fault check-breach check-fuzz check-keys check-logins check-loris check-interop check-queue check-slow fuzz asan bench-queue bench-smtp bench-smtp-all bench-imap bench-tls lint install uninstall clean
MAKEFLAGS += --no-builtin-rules
.SUFFIXES:
.DELETE_ON_ERROR:

ifeq ($(origin CC),default)
CC = gcc
endif
ifndef V
Q = @
endif
B       ?= build
PREFIX  ?= /usr/local
SYSCONFDIR ?= /etc
LIBEXEC  = $(PREFIX)/libexec/bulkhead

WARN = -Wall -Wextra -Wformat=2 -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
       -Wimplicit-fallthrough -Wvla -Wconversion -Werror=format-security -Werror=implicit
ifdef CI
WARN += -Werror
endif
HARDEN = -fstack-protector-strong -ftrivial-auto-var-init=zero -fno-delete-null-pointer-checks \
         -fno-strict-overflow -fno-strict-aliasing -fno-common -fcf-protection=full
ifneq (,$(findstring gcc,$(CC)))
HARDEN += -fstack-clash-protection -fzero-call-used-regs=used-gpr
endif
ifdef SANITIZE
SANITIZERS = $(if $(filter-out 1,$(SANITIZE)),$(SANITIZE),address,undefined)
OPT = -O1 -fno-omit-frame-pointer -fsanitize=$(SANITIZERS) -fno-sanitize-recover=undefined -DBH_SANITIZE
HARDEN = -fno-strict-aliasing -fno-common
LDHARDEN = -fsanitize=$(SANITIZERS)
STATIC =
else
OPT = -O2 -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3
LDHARDEN = -pie -Wl,-z,relro,-z,now,-z,noexecstack,-z,separate-code
STATIC = -static-pie
endif
CPPFLAGS += -D_GNU_SOURCE -Icommon -I. -DBH_SYSCONFDIR='"$(SYSCONFDIR)"' -DBH_LIBEXEC='"$(LIBEXEC)"'
CFLAGS   += -std=gnu17 -g $(OPT) -fPIE $(HARDEN) $(WARN)
LDFLAGS  += $(LDHARDEN) -Wl,--gc-sections -Wl,--as-needed

# The library: lib without OpenSSL, libtls with it.
LIB_SRC := $(filter-out common/lib/tls/%,$(wildcard common/lib/*/*.c))
TLS_SRC := $(wildcard common/lib/tls/*.c)

# A program is a folder with a main.c; a cell is its folder cell/.
PROGRAMS := smtpd submitd qmgr relay local pop3d imapd idled authd keyd tlsd dnsd
CELLS    := imapd-cell pop3d-cell local-cell
TOOLS    := master launcher bulkhead sendmail
dir_authd := common/authd
dir_keyd  := common/keyd
dir_tlsd  := common/tlsd
dir_dnsd  := common/dnsd
dir_master := common/master
dir_launcher := common/master/launcher
dir_bulkhead := common/master/ctl
dir_sendmail := submitd/sendmail
dir_imapd-cell := imapd/cell
dir_pop3d-cell := pop3d/cell
dir_idled := imapd/idled
dir_local-cell := local/cell
# What is started for each connection is linked statically: a small image is forked and started
# in half the time. Only programs that need no more than the C library, and tlsd, which has OpenSSL in it: its segments
# begin at 2 MiB, for huge pages (common/lib/loop/image.h). The linker would warn of what OpenSSL could load at run time;
# tlsd has no file to load, nor the calls to do so.
STATICALLY = %-cell smtpd submitd pop3d imapd idled local tlsd
folder = $(or $(dir_$(1)),$(1))
libs_relay := tls
libs_tlsd := tls
ldflags_tlsd := -Wl,-z,max-page-size=0x200000 -Wl,--no-warnings
extra_dnsd := -lcares
extra_authd := -lcrypt
extra_imapd-cell := -lz
extra_keyd := -lssl -lcrypto

ALL := $(PROGRAMS) $(CELLS) $(TOOLS)
EXIST := $(foreach p,$(ALL),$(if $(wildcard $(call folder,$(p))/main.c),$(p)))
BINS := $(addprefix $(B)/bin/,$(EXIST))

all: $(BINS)

LIB_OBJ := $(LIB_SRC:%.c=$(B)/%.o)
TLS_OBJ := $(TLS_SRC:%.c=$(B)/%.o)

$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c $< -o $@

$(B)/libbulkhead.a: $(LIB_OBJ)
	@rm -f $@; ar rcs $@ $^
$(B)/libtls.a: $(TLS_OBJ)
	@rm -f $@; ar rcs $@ $^

# Where things will lie is compiled into these: another PREFIX makes them anew.
PATHS := $(addprefix $(B)/common/,lib/conf/conf.o lib/role/startconf.o master/main.o master/ctl/main.o master/launcher/main.o)
ifneq ($(shell cat $(B)/paths 2>/dev/null),$(SYSCONFDIR) $(LIBEXEC))
$(shell mkdir -p $(B) && echo '$(SYSCONFDIR) $(LIBEXEC)' >$(B)/paths)
endif
$(PATHS): $(B)/paths

define program
obj_$(1) := $$(patsubst %.c,$(B)/%.o,$$(wildcard $(call folder,$(1))/*.c))
$(B)/bin/$(1): $$(obj_$(1)) $(if $(libs_$(1)),$(B)/libtls.a) $(B)/libbulkhead.a
	@mkdir -p $$(@D)
	$$(Q)$(CC) $(CFLAGS) $(LDFLAGS) $(if $(filter $(STATICALLY),$(1)),$(STATIC)) $(ldflags_$(1)) -o $$@ \
	    -Wl,--start-group $$^ -Wl,--end-group \
	    $(if $(libs_$(1)),-lssl -lcrypto) $(extra_$(1))
endef
$(foreach p,$(EXIST),$(eval $(call program,$(p))))

# Unit tests: every tests/unit/test_X.c exports Suite *suite_X(void); everything but main.c is linked in.
TEST_SRC := $(filter-out tests/unit/print_%,$(wildcard tests/unit/*.c))
TEST_OBJ := $(TEST_SRC:%.c=$(B)/%.o)
UNITS := $(patsubst tests/unit/test_%.c,%,$(wildcard tests/unit/test_*.c))
UNDER_TEST := $(filter-out %/main.o,$(foreach p,$(EXIST),$(obj_$(p))))
$(B)/suites.h: $(TEST_SRC)
	@mkdir -p $(@D)
	@for u in $(UNITS); do echo "SUITE($$u)"; done > $@
$(B)/tests/unit/main.o: $(B)/suites.h
$(B)/tests/unit/main.o: CPPFLAGS += -I$(B)
$(B)/unit: $(TEST_OBJ) $(UNDER_TEST) $(B)/libtls.a $(B)/libbulkhead.a
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -Wl,--wrap=now_ms -o $@ -Wl,--start-group $^ -Wl,--end-group -lcheck -lsubunit -lm -lrt -lpthread -lssl -lcrypto -lcares -lcrypt -lz

unit: $(B)/unit
	$(B)/unit

# The code's tables as text, which tests/protocol/test_docs.py compares with the documents.
$(B)/print_tables: $(B)/tests/unit/print_tables.o $(B)/libbulkhead.a
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^

# Fuzzing (tests/fuzz). The driver runs all targets over their seeds and changes of them; make fuzz builds each with
# libFuzzer in a tree of its own: build-fuzz/fuzz/NAME tests/fuzz/seeds/NAME.
FUZZ_SRC := $(filter-out tests/fuzz/driver.c tests/fuzz/one.c,$(wildcard tests/fuzz/*.c))
FUZZ_OBJ := $(FUZZ_SRC:%.c=$(B)/%.o) $(UNDER_TEST)
FUZZ_TARGETS := $(shell sed -n 's/^TARGET(\(.*\))/\1/p' tests/fuzz/targets.def)
FUZZ_LIBS := -lssl -lcrypto -lcares -lcrypt -lz
$(B)/fuzz-driver: $(B)/tests/fuzz/driver.o $(FUZZ_OBJ) $(B)/libtls.a $(B)/libbulkhead.a
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ -Wl,--start-group $^ -Wl,--end-group $(FUZZ_LIBS)
$(B)/fuzz/%: tests/fuzz/one.c $(FUZZ_OBJ) $(B)/libtls.a $(B)/libbulkhead.a
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -fsanitize=fuzzer -DFUZZ_TARGET=fuzz_$* $(LDFLAGS) -o $@ -Wl,--start-group $^ -Wl,--end-group $(FUZZ_LIBS)
fuzz-targets: $(addprefix $(B)/fuzz/,$(FUZZ_TARGETS))
fuzz: deps-fuzz
	@$(MAKE) --no-print-directory -j2 CC=clang SANITIZE=fuzzer-no-link,address,undefined B=build-fuzz fuzz-targets
# Each target for SECONDS.
check-fuzz: fuzz
	@sh tests/run.sh build-fuzz fuzz-all

# The rigs of tests/fault: the model of the commit protocol, the tracer, the block log.
RIGS := $(patsubst tests/fault/%.c,$(B)/fault/%,$(wildcard tests/fault/*.c))
$(B)/fault/%: tests/fault/%.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -MMD -MP -o $@ $<

# Builds of the programs that play the taken process, in a tree of their own: tests/fault/breach. Never installed.
BREACHED := $(filter-out master bulkhead sendmail,$(EXIST))
define breached
$(B)/breach/bin/$(1): $$(obj_$(1)) $(B)/tests/fault/breach/breach.o $(if $(libs_$(1)),$(B)/libtls.a) $(B)/libbulkhead.a
	@mkdir -p $$(@D)
	$$(Q)$(CC) $(CFLAGS) $(LDFLAGS) $(if $(filter $(STATICALLY),$(1)),$(STATIC)) $(ldflags_$(1)) -o $$@ \
	    -Wl,--wrap=guard_enter,--wrap=guard_session -Wl,--start-group $$^ -Wl,--end-group \
	    $(if $(libs_$(1)),-lssl -lcrypto) $(extra_$(1))
endef
$(foreach p,$(BREACHED),$(eval $(call breached,$(p))))
$(B)/breach/bin/%: $(B)/bin/%
	@mkdir -p $(@D); cp $< $@
BREACH := $(addprefix $(B)/breach/bin/,$(BREACHED) master bulkhead)

# What tests and builds need, from Debian's packages; nothing is done when all is there.
deps:
	@sh tests/deps.sh build
deps-test:
	@sh tests/deps.sh build test
deps-interop:
	@sh tests/deps.sh build test interop
deps-fault:
	@sh tests/deps.sh build test fault
deps-fuzz:
	@sh tests/deps.sh build fuzz

# Fills a queue with as many messages as a measurement wants.
$(B)/queue_fill: $(B)/tests/bench/queue_fill.o $(filter-out %/main.o,$(obj_qmgr)) $(B)/libbulkhead.a
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ -Wl,--start-group $^ -Wl,--end-group

# What a process for each connection costs at least.
$(B)/bare_server: $(B)/tests/bench/bare_server.o
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -static-pie -o $@ $^

# Many short or idle sessions at once.
$(B)/imap_load: $(B)/tests/bench/imap_load.o
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^

# A client that makes TLS connections and counts them.
$(B)/tls_source: tests/bench/tls_source.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $< -lssl -lcrypto

PY = python3
# One line at the end sums up every part; a part that fails is named.
check: deps-test
	@$(MAKE) --no-print-directory -j2 all $(B)/unit $(B)/print_tables $(B)/queue_fill $(B)/fuzz-driver $(RIGS) $(BREACH)
	@sh tests/run.sh $(B) -b "unit fuzz patient" protocol fault

# Slices of the checks below that take a while each.
check-slow: deps-test
	@$(MAKE) --no-print-directory -j2 all $(RIGS)
	@sh tests/run.sh $(B) slow

# The whole of what check has a slice of: 50,000 messages to a dead destination, others to a live one.
check-queue: deps-test
	@$(MAKE) --no-print-directory -j2 all $(B)/queue_fill
	@QUEUE_DEAD=50000 sh tests/run.sh $(B) queue

# All rigs whole: an hour and a quarter. Each ends by itself after the minutes that tests/run.sh gives it; FAULT_SHARE=20 gives
# it 20 of a hundred of them.
check-fault: deps-fault
	@$(MAKE) --no-print-directory -j2 all $(RIGS)
	@sh tests/run.sh $(B) fault-all

# Every role taken over: all system calls, 10,000 paths, every message; figures beside Postfix and Dovecot.
check-breach: deps-interop
	@$(MAKE) --no-print-directory -j2 all $(B)/print_tables $(BREACH)
	@sh tests/run.sh $(B) breach-all

# Certificates, tickets, signatures; 100,000 names that nobody has.
check-keys: deps-test
	@$(MAKE) --no-print-directory -j2 all
	@sh tests/run.sh $(B) keys

# 500 wrong logins at once; 10,000 samples of time; strangers who try to lock somebody out.
check-logins: deps-test
	@$(MAKE) --no-print-directory -j2 all
	@sh tests/run.sh $(B) logins

# 2,000 slow connections on each port, three minutes from many addresses and three from one.
check-loris: deps-test
	@$(MAKE) --no-print-directory -j2 all
	@sh tests/run.sh $(B) loris

check-interop: deps-interop
	@$(MAKE) --no-print-directory -j2 all
	@sh tests/run.sh $(B) interop

asan: deps-test
	@$(MAKE) --no-print-directory -j2 SANITIZE=1 B=build-asan all build-asan/unit build-asan/fuzz-driver build-asan/print_tables build-asan/queue_fill
	@sh tests/run.sh build-asan unit fuzz patient protocol

# BENCH="--flush-ms 3" for a disk that takes its time.
bench-smtp: deps-interop
	@$(MAKE) --no-print-directory -j2 all $(B)/bare_server $(B)/fault/blocklog
	@BULKHEAD_BIN=$(CURDIR)/$(B)/bin $(PY) tests/bench/bench_smtp.py $(BENCH)

# Every way a message can take, beside Postfix, Exim and OpenSMTPD.
bench-smtp-all: deps-interop
	@$(MAKE) --no-print-directory -j2 all $(B)/bare_server $(B)/fault/blocklog
	@BULKHEAD_BIN=$(CURDIR)/$(B)/bin $(PY) tests/bench/bench_smtp.py --all $(BENCH)

# BENCH="--messages 20000 200000 --idle 2000" for the whole; see bench_imap.py --help.
bench-imap: deps-interop
	@$(MAKE) --no-print-directory -j2 all $(B)/imap_load
	@BULKHEAD_BIN=$(CURDIR)/$(B)/bin $(PY) tests/bench/bench_imap.py $(BENCH)

# TLS connections a second, beside Postfix and Dovecot.
bench-tls: deps-interop
	@$(MAKE) --no-print-directory -j2 all $(B)/tls_source
	@BULKHEAD_BIN=$(CURDIR)/$(B)/bin $(PY) tests/bench/bench_tls.py

# 10,000, 100,000 and 1,000,000 messages; TMPDIR says on which file system.
bench-queue: deps-interop
	@$(MAKE) --no-print-directory -j2 all $(B)/queue_fill
	@BULKHEAD_BIN=$(CURDIR)/$(B)/bin $(PY) tests/bench/bench_queue.py

lint:
	clang-format --dry-run -Werror $(shell git ls-files '*.c' '*.h')
	shellcheck install.sh tests/*.sh tests/fuzz/*.sh .ci/run

# Files only; install.sh makes users, directories and a first configuration.
MAN1 = submitd/sendmail/sendmail.1
MAN5 = common/master/ctl/bulkhead.conf.5
MAN8 = $(wildcard */*.8 */*/*.8 common/master/*/*.8)
install: all
	install -d $(DESTDIR)$(LIBEXEC) $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(PREFIX)/bin
	install -m 0755 $(filter-out $(B)/bin/sendmail,$(BINS)) $(DESTDIR)$(LIBEXEC)/
	install -m 0755 $(B)/bin/sendmail $(DESTDIR)$(PREFIX)/sbin/sendmail
	ln -sf $(LIBEXEC)/bulkhead $(DESTDIR)$(PREFIX)/sbin/bulkhead
	ln -sf ../sbin/sendmail $(DESTDIR)$(PREFIX)/bin/mailq
	ln -sf ../sbin/sendmail $(DESTDIR)$(PREFIX)/bin/newaliases
	install -d $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/man/man5 \
	    $(DESTDIR)$(PREFIX)/share/man/man8
	install -m 0644 $(MAN1) $(DESTDIR)$(PREFIX)/share/man/man1/
	ln -sf sendmail.1 $(DESTDIR)$(PREFIX)/share/man/man1/mailq.1
	ln -sf sendmail.1 $(DESTDIR)$(PREFIX)/share/man/man1/newaliases.1
	install -m 0644 $(MAN5) $(DESTDIR)$(PREFIX)/share/man/man5/
	install -m 0644 $(MAN8) $(DESTDIR)$(PREFIX)/share/man/man8/

uninstall:
	rm -rf $(DESTDIR)$(LIBEXEC)
	rm -f $(DESTDIR)$(PREFIX)/sbin/bulkhead $(DESTDIR)$(PREFIX)/sbin/sendmail \
	    $(DESTDIR)$(PREFIX)/bin/mailq $(DESTDIR)$(PREFIX)/bin/newaliases
	cd $(DESTDIR)$(PREFIX)/share/man && rm -f \
	    man1/mailq.1 man1/newaliases.1 $(foreach m,$(MAN1),man1/$(notdir $(m))) $(foreach m,$(MAN5),man5/$(notdir $(m))) \
	    $(foreach m,$(MAN8),man8/$(notdir $(m)))

clean:
	rm -rf build build-*

-include $(shell find $(B) -name '*.d' 2>/dev/null)
.PHONY: all unit deps deps-test deps-fault deps-fuzz deps-interop clean check check-fault check-breach check-fuzz check-keys check-logins check-loris check-interop check-queue check-slow fuzz fuzz-targets asan bench-queue bench-smtp bench-smtp-all bench-imap bench-tls lint install uninstall
