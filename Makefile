# SPDX-License-Identifier: MIT
# The image, its host-side tests and its checks. `./cleave` is the front door; this is for those who work on the code.

BUILD := build

# One line a step; `make V=1` shows the commands.
Q := $(if $(V),,@)
say = $(if $(V),,@echo '  $(1) $@')
IMAGE := $(BUILD)/cleave

DIRS := lib mm p2m sched drivers devices guest boot arch/x86/cpu arch/x86/emul arch/x86/hvm
C_SOURCES := $(sort $(wildcard $(addsuffix /*.c,$(DIRS))))
S_SOURCES := $(sort $(wildcard $(addsuffix /*.S,$(DIRS))))
HEADERS := $(sort $(wildcard $(addsuffix /*.h,$(DIRS))))

# What touches hardware. Everything else is pure: it also compiles and runs in user space (lib/port.h).
IMPURE := lib/string.c boot/main.c boot/efi.c guest/guest.c $(wildcard arch/x86/cpu/*.c) \
	arch/x86/hvm/svm.c arch/x86/hvm/loop.c arch/x86/hvm/hvm.c \
	$(addprefix arch/x86/hvm/,vmx.c vmx_cpu.c vmx_state.c) drivers/power.c drivers/serial.c
PURE := $(filter-out $(IMPURE),$(C_SOURCES))

WARN := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wundef -Wvla -Wno-unused-parameter
CFLAGS := -std=gnu11 -O2 -g -I. $(WARN) -ffreestanding -nostdlib -fno-pic -fno-pie -mno-red-zone -mgeneral-regs-only \
	-mcmodel=kernel -fstack-protector-strong -mstack-protector-guard=global -fno-omit-frame-pointer \
	-fno-asynchronous-unwind-tables -fno-strict-aliasing -fno-common -fcf-protection=none -MMD -MP \
	-include arch/x86/cpu/port_inline.h
ASFLAGS := -I. -g -MMD -MP
LDFLAGS := -n -T linker.ld -z max-page-size=0x1000 -z noexecstack --no-warn-rwx-segments --build-id=none

ifeq ($(RELEASE),1)
CFLAGS += -DNDEBUG
endif

VERSION := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
OBJECTS := $(C_SOURCES:%.c=$(BUILD)/%.o) $(S_SOURCES:%.S=$(BUILD)/%.S.o)

all: $(IMAGE)

# Function names for back traces come from a first link; they stand behind all text and so move none of it.
$(IMAGE): $(OBJECTS) linker.ld tools/symbols.py
	$(call say,LD)
	$(Q)$(LD) $(LDFLAGS) -o $(BUILD)/cleave.pass1 $(OBJECTS)
	$(Q)nm -n $(BUILD)/cleave.pass1 | /usr/bin/python3 tools/symbols.py >$(BUILD)/symbols.S
	$(Q)$(CC) -c -o $(BUILD)/symbols.o $(BUILD)/symbols.S
	$(Q)$(LD) $(LDFLAGS) -o $@.debug $(OBJECTS) $(BUILD)/symbols.o
	$(Q)objcopy --strip-debug $@.debug $@

$(BUILD)/%.o: %.c
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -c -o $@ $<

$(BUILD)/%.S.o: %.S
	$(call say,AS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ASFLAGS) -c -o $@ $<

$(BUILD)/boot/main.o: CFLAGS += -DCLEAVE_VERSION='"$(VERSION)"'

# Linked-in data: the guests' DSDT and the screen's font.
$(BUILD)/guest/dsdt.aml: guest/dsdt.asl
	@mkdir -p $(@D)
	$(Q)iasl -we -p $(BUILD)/guest/dsdt $< >$(BUILD)/guest/dsdt.log || { cat $(BUILD)/guest/dsdt.log; exit 1; }

$(BUILD)/font.psf: /usr/share/consolefonts/Lat15-VGA16.psf.gz
	@mkdir -p $(@D)
	$(Q)gunzip -c $< >$@

$(BUILD)/guest/dsdt.S.o: $(BUILD)/guest/dsdt.aml
$(BUILD)/drivers/font.S.o: $(BUILD)/font.psf

# --- Host side: unit, property and fuzz tests, and the config checker, under ASan and UBSan.
HOST := $(BUILD)/host
comma := ,
HOST_CC := gcc
HOST_CFLAGS := -std=gnu11 -O1 -g -I. -Wall -Wextra -Werror -Wno-unused-parameter -fno-builtin-log -fno-omit-frame-pointer \
	-fno-strict-aliasing -fsanitize=address,undefined -fno-sanitize-recover=all -MMD -MP
HOST_OBJECTS := $(PURE:%.c=$(HOST)/obj/%.o) $(HOST)/obj/tests/host/port.o $(HOST)/obj/tests/host/dsdt.S.o
UNIT := $(patsubst tests/unit/%.c,$(HOST)/unit/%,$(wildcard tests/unit/*.c))
PROPERTY := $(patsubst tests/property/%.c,$(HOST)/property/%,$(wildcard tests/property/*.c))
THREADS := $(patsubst tests/threads/%.c,$(HOST)/threads/%,$(wildcard tests/threads/*.c))
REPLAY := $(patsubst tests/fuzz/%.c,$(HOST)/fuzz/%,$(wildcard tests/fuzz/*.c))

# A test names the libraries it needs in a line `/* link: -lfoo */`.
link_flags = $(shell sed -n 's,^/\* link: \(.*\) \*/$$,\1,p' $<)

$(HOST)/obj/%.o: %.c
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(HOST_CC) $(HOST_CFLAGS) -c -o $@ $<

$(HOST)/obj/tests/host/dsdt.S.o: guest/dsdt.S $(BUILD)/guest/dsdt.aml
	@mkdir -p $(@D)
	$(Q)$(HOST_CC) -I. -c -o $@ $<

$(HOST)/libpure.a: $(HOST_OBJECTS)
	$(call say,AR)
	$(Q)rm -f $@
	$(Q)ar rcs $@ $^

$(HOST)/unit/%: tests/unit/%.c $(HOST)/libpure.a
	$(call say,LD)
	@mkdir -p $(@D)
	$(Q)$(HOST_CC) $(HOST_CFLAGS) -MF $@.d -o $@ $< $(HOST)/libpure.a $(link_flags) -lcmocka

$(HOST)/property/%: tests/property/%.c $(HOST)/libpure.a
	$(call say,LD)
	@mkdir -p $(@D)
	$(Q)$(HOST_CC) $(HOST_CFLAGS) -MF $@.d -o $@ $< $(HOST)/libpure.a $(link_flags) -lcmocka

$(HOST)/fuzz/%: tests/fuzz/%.c $(HOST)/obj/tests/host/replay.o $(HOST)/libpure.a
	$(call say,LD)
	@mkdir -p $(@D)
	$(Q)$(HOST_CC) $(HOST_CFLAGS) -MF $@.d -o $@ $< $(HOST)/obj/tests/host/replay.o $(HOST)/libpure.a $(link_flags)

# Threads, under ThreadSanitizer, which wants everything compiled for it.
TSAN_CFLAGS := $(subst address$(comma)undefined,thread,$(HOST_CFLAGS))
TSAN_OBJECTS := $(patsubst %.c,$(HOST)/tsan/%.o,$(filter lib/% mm/% p2m/%,$(PURE)) tests/host/port.c)

$(HOST)/tsan/%.o: %.c
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(HOST_CC) $(TSAN_CFLAGS) -c -o $@ $<

$(HOST)/threads/%: tests/threads/%.c $(TSAN_OBJECTS)
	$(call say,LD)
	@mkdir -p $(@D)
	$(Q)$(HOST_CC) $(TSAN_CFLAGS) -MF $@.d -o $@ $(filter-out %.h,$^)

# As a release is: for counting instructions (tests/bench) and for long runs of property tests.
FAST := $(BUILD)/fast
FAST_CFLAGS := -std=gnu11 -O2 -g -I. -Wall -Wextra -Werror -Wno-unused-parameter -DNDEBUG -fno-builtin -mgeneral-regs-only \
	-fno-omit-frame-pointer -fno-strict-aliasing -MMD -MP -include tests/bench/port_inline.h
FAST_OBJECTS := $(patsubst %.c,$(FAST)/obj/%.o,$(filter lib/% mm/% p2m/%,$(PURE)) tests/host/port.c)

$(FAST)/obj/%.o: %.c
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(HOST_CC) $(FAST_CFLAGS) -c -o $@ $<

$(FAST)/%: tests/%.c $(FAST_OBJECTS)
	$(call say,LD)
	@mkdir -p $(@D)
	$(Q)$(HOST_CC) $(FAST_CFLAGS) -MF $@.d -o $@ $(filter-out %.h,$^) $(link_flags)

# The same harness under libFuzzer, for long runs: make fuzz-config && build/fuzz/config
# -Dlog: libFuzzer itself calls libm's.
fuzz-%: tests/fuzz/%.c $(BUILD)/guest/dsdt.S.o
	@mkdir -p $(BUILD)/fuzz
	$(Q)clang -std=gnu11 -O1 -g -I. -fno-builtin-log -Dlog=cleave_log -fsanitize=fuzzer,address,undefined -o $(BUILD)/fuzz/$* $< $(PURE) \
		tests/host/port.c $(BUILD)/guest/dsdt.S.o $(link_flags)

$(HOST)/config: tools/config/config_main.c $(HOST)/libpure.a
	@mkdir -p $(@D)
	$(Q)$(HOST_CC) $(HOST_CFLAGS) -MF $@.d -o $@ $< $(HOST)/libpure.a

host-tests: $(UNIT) $(PROPERTY) $(REPLAY) $(THREADS) $(HOST)/config

test-quick: host-tests
	$(Q)/usr/bin/python3 tools/test.py --host-only

test:
	$(Q)./cleave test

check:
	$(Q)/usr/bin/python3 tools/check.py

clean:
	$(Q)rm -rf $(BUILD)

-include tests/guests/guests.mk
-include $(OBJECTS:.o=.d) $(HOST_OBJECTS:.o=.d) $(TSAN_OBJECTS:.o=.d) $(FAST_OBJECTS:.o=.d) $(wildcard $(FAST)/*/*.d) $(wildcard $(HOST)/*/*.d $(HOST)/*.d)

.PHONY: all host-tests test-quick test check clean
.SECONDARY:
.DELETE_ON_ERROR:
