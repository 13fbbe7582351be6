-- Lets a task that waits for one task wait for more tasks of its shard, which were sent meanwhile.
--
-- KEYS  1 META of the shard
-- ARGV  1 the task, 2 and on: ids of the others, whose results it wants
-- Reply 1, or 0 if it no longer waits, or has grown before
--
-- Safe to repeat: it grows once.

-- @include lib/transition.lua

local ids = {}
for i = 2, #ARGV do ids[i - 1] = ARGV[i] end
local mine = share(SELF)
mine.grown = { ARGV[1], ids }
carry_out()
return mine.grown and 0 or 1
