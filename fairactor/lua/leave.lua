-- Ends a runtime's lease: what it still claims goes back to its place, not counted as a delivery.
--
-- KEYS  1 META of the shard
-- ARGV  1 runtime
-- Reply how many claims went back
--
-- Safe to repeat: a runtime that has left has no claims.

-- @include lib/base.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/queues.lua
-- @include lib/outcome.lua
-- @include lib/release.lua

local claims = call('HGETALL', CLAIMS .. ARGV[1])
local write_release = release(claims, 0, '')
arrive(arriving)
arrive(with_room())

write_queues()
write_release()
forget(ARGV[1])
save_counts()
save_ring()
return #claims / 2
