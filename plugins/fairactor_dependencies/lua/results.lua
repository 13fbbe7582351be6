-- Returns some of the results that were too large for a task's record.
--
-- KEYS  1 META of the shard
-- ARGV  1 the token that stands for them, 2 index of the first, 3 of the last
-- Reply JSON of the first ones, as many as a call may return; nil if they are not kept any more
--
-- Bounded: it returns 1,000 results, or about 1 MB.
-- Reads only.

-- @include lib/intact.lua

local MOST, BYTES = 1000, 1048576
local key, from, to = OWN .. 'got:' .. ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if call('EXISTS', key) == 0 then return false end
local found, size = {}, 0
while from <= to and #found < MOST and size < BYTES do
  found[#found + 1] = call('HGET', key, from) or 'null' -- one by one, since each may be large
  size = size + #found[#found]
  from = from + 1
end
return found
