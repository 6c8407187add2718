# SPDX-License-Identifier: MIT
# The tiny guest, one file for each loader: build/guests/tiny-mb1.elf, tiny-mb2.elf, tiny-pvh.elf.

GUEST := $(BUILD)/guests
GUEST_CFLAGS := -std=gnu11 -O2 -g -I. -Wall -Wextra -Werror -Wno-format-zero-length -ffreestanding -nostdlib -fno-pic -fno-pie -mno-red-zone \
	-mgeneral-regs-only -fno-stack-protector -fcf-protection=none -fno-asynchronous-unwind-tables -fno-strict-aliasing \
	-fno-tree-loop-distribute-patterns -MMD -MP
GUEST_OBJECTS := $(patsubst tests/guests/%.c,$(GUEST)/%.o,$(sort $(wildcard tests/guests/*.c))) \
	$(GUEST)/trap_entry.S.o $(GUEST)/realmode_code.S.o
GUEST_KINDS := mb1 mb2 pvh
GUEST_LINK = $(LD) -n -static -T tests/guests/guest.ld -z noexecstack --no-warn-rwx-segments --build-id=none

guests: $(GUEST_KINDS:%=$(GUEST)/tiny-%.elf) $(GUEST)/tsc

$(GUEST)/tsc: tests/guests/linux/tsc.c
	@mkdir -p $(@D)
	$(CC) -O2 -Wall -Wextra -static -nostdlib -fno-stack-protector -fcf-protection=none -o $@ $<

$(GUEST)/%.o: tests/guests/%.c
	@mkdir -p $(@D)
	$(CC) $(GUEST_CFLAGS) -c -o $@ $<

$(GUEST)/%.S.o: tests/guests/%.S
	@mkdir -p $(@D)
	$(CC) -g -c -o $@ $<

$(GUEST)/entry-mb1.o: GUEST_HEADER := -DMULTIBOOT1
$(GUEST)/entry-mb2.o: GUEST_HEADER := -DMULTIBOOT2
$(GUEST)/entry-pvh.o: GUEST_HEADER := -DPVH
$(GUEST)/entry-%.o: tests/guests/entry.S
	@mkdir -p $(@D)
	$(CC) -g $(GUEST_HEADER) -c -o $@ $<

$(GUEST)/tiny-%.elf64: $(GUEST)/entry-%.o $(GUEST_OBJECTS) tests/guests/guest.ld
	$(GUEST_LINK) -o $@ $(filter %.o,$^)

# Multiboot 1 knows 32-bit ELF; QEMU's loader insists.
$(GUEST)/tiny-mb1.elf: $(GUEST)/tiny-mb1.elf64
	objcopy -O elf32-i386 --strip-debug $< $@
$(GUEST)/tiny-%.elf: $(GUEST)/tiny-%.elf64
	objcopy --strip-debug $< $@

-include $(wildcard $(GUEST)/*.d)
.PHONY: guests
