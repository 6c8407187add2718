/* SPDX-License-Identifier: MIT */
/* The one thing that timers and run queues ask of the outside beyond lib/port.h. Implemented beside the port. */
#pragma once

/* Makes the pCPU leave guest mode or HLT soon and look at its queues again. Harmless if it does so anyway. */
void port_kick(unsigned pcpu);
