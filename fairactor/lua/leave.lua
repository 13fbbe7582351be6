-- Ends a runtime's lease. Its claims go back to their places, and do not count as deliveries.
--
-- KEYS  1 META of the shard
-- ARGV  1 runtime
-- Reply how many claims it had
--
-- Safe to repeat: a runtime that has left has no claims.

-- @include lib/intact.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/queues.lua
-- @include lib/ending.lua
-- @include lib/release.lua

local number, assigned_tenants, write_release = release(ARGV[1], 0, '')
run_ends_hook()
update_ring(arriving)
clamp_tags(assigned_tenants)

begin_writing()
write_release()
forget(ARGV[1])
save_counts()
save_shard()
wake_all()
return number
