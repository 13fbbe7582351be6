-- Looks anew at which tenants belong on the ring, some at a time, after the defaults have changed.
--
-- KEYS  1 META of the shard
-- ARGV  1 cursor, 0 at first
-- Reply the next cursor, 0 at the end
--
-- Safe to repeat.

-- @include lib/intact.lua
-- @include lib/counts.lua
-- @include lib/ring.lua

local found = call('HSCAN', COUNTS, ARGV[1], 'COUNT', 500)
local names, free, waiting = {}, {}, {}
for i = 1, #found[2], 2 do names[#names + 1] = found[2][i] end
meet(names)
for _, name in ipairs(names) do
  if not tenants[name][LIMITS] then
    free[#free + 1] = name
    if call('EXISTS', QUEUE .. name) == 1 then waiting[#waiting + 1] = name end
  end
end
seat(waiting)

begin_writing()
write_all('ZREM', THROTTLED, free)
save_counts()
save_shard()
return found[1]
