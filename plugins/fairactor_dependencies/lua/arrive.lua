-- Takes what another shard has to say.
--
-- KEYS  1 META of the shard
-- ARGV  messages, as `take` of that shard has given them
-- Reply how many there were
--
-- Safe to repeat: what is told twice changes nothing.

-- @include lib/intact.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/queues.lua
-- @include lib/ending.lua

depend_on(SELF) -- nothing that waits may have been sent here
share(SELF).told = ARGV
conclude()
seat(arriving)

begin_writing()
write_ends()
save_counts()
save_shard()
return #ARGV
