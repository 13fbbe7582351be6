-- Returns some of the results that were too large for a task's record.
--
-- KEYS  1 META of the shard
-- ARGV  1 the token that stands for them, 2 index of the first, 3 of the last
-- Reply JSON of the first ones, as many as a call may return; nil if they are not kept any more
--
-- Reads only.

-- @include lib/intact.lua

local MOST, BYTES, AT_ONCE = 500, 262144, 20
local key, from, to = OWN .. 'got:' .. ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if call('EXISTS', key) == 0 then return false end
local found, size = {}, 0
while from <= to and #found < MOST and size < BYTES do
  local indexes = {}
  for i = from, math.min(from + AT_ONCE - 1, to) do indexes[#indexes + 1] = i end
  for _, result in ipairs(call('HMGET', key, unpack(indexes))) do
    found[#found + 1] = result or 'null'
    size = size + #found[#found]
  end
  from = from + #indexes
end
return found
