-- Decides again which tenants belong on the ring, in steps, after the defaults have changed.
--
-- KEYS  1 META of the shard
-- ARGV  1 cursor, 0 at first
-- Reply the next cursor, 0 at the end
--
-- Safe to repeat: it decides by what is stored.

-- @include lib/intact.lua
-- @include lib/counts.lua
-- @include lib/ring.lua

local found = call('HSCAN', COUNTS, ARGV[1], 'COUNT', 50)
local names = {}
for i = 1, #found[2], 2 do names[#names + 1] = found[2][i] end
load_tenants(names)
local unlimited, waiting = without_limits(names)
update_ring(waiting)

begin_writing()
write_all('ZREM', THROTTLED, unlimited)
save_counts()
save_shard()
return found[1]
