-- Ends a runtime's lease: what it still claims goes back to its place, not counted as a delivery.
--
-- KEYS  1 META of the shard
-- ARGV  1 runtime
-- Reply how many claims went back
--
-- Safe to repeat: a runtime that has left has no claims.

-- @include lib/base.lua
-- @include lib/tenants.lua
-- @include lib/outcome.lua
-- @include lib/release.lua

local ids = call('HKEYS', CLAIMS .. ARGV[1])
local write_release = release(ids, 0, '')
tag_arrivals()

write_release()
forget(ARGV[1])
save_tenants()
return #ids
