-- Has a task that waits for one wait for others of its shard, too, that were sent meanwhile.
--
-- KEYS  1 META of the shard
-- ARGV  1 the task, 2 and on ids of the others, whose results it wants
-- Reply 1, or 0 where it waits no more, or has grown before
--
-- Safe to repeat: it grows once.

-- @include lib/intact.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/queues.lua
-- @include lib/ending.lua

local ids = {}
for i = 2, #ARGV do ids[i - 1] = ARGV[i] end
local mine = share(SELF)
mine.grown = { ARGV[1], ids }
conclude()
seat(arriving)

begin_writing()
write_ends()
save_counts()
save_shard()
return mine.grown and 0 or 1
