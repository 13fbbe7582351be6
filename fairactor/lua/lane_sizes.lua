-- Returns how many tasks wait in lanes, and for how long.
--
-- KEYS  1 META of the shard
-- ARGV  1 and on: lanes, '' for the common one
-- Reply {for each lane: how many tenants have tasks there, or -1 of the common lane, how many of them were looked at, how
--        many tasks these have there, ms that the longest of their first tasks has waited, or -1}; the caller asks again for
--       the lanes that the reply does not have
--
-- Reads only. Bounded: 300 tenants of a lane, those that have tasks there for longest; it stops after 600 tenants. Of the
-- common lane it looks at 100 tenants: the next on the rings, and the last.

-- @include lib/intact.lua
-- @include lib/lanes.lua
-- @include lib/waits.lua

local MOST_OF_LANE, MOST, EDGE = 300, 600, 50

local function names_in_common()
  local names = {}
  for kind in shard.kinds:gmatch('%d+') do
    act_for(kind)
    for _, range in ipairs({ { 0, EDGE - 1 }, { -EDGE, -1 } }) do
      for _, member in ipairs(#names < MOST_OF_LANE and call('ZRANGE', shard.ring, range[1], range[2]) or {}) do
        local name = member:byte() == 255 and call('ZRANGE', shard.group .. member:sub(2), 0, 0)[1] or member
        if name then names[#names + 1] = name end
      end
    end
  end
  return names
end

local reply, looked_at = {}, 0
for _, lane in ipairs(ARGV) do
  if looked_at >= MOST then break end
  local names = lane == '' and names_in_common() or call('ZRANGE', IN_LANE .. lane, 0, MOST_OF_LANE - 1)
  local tasks, longest = 0, -1
  for _, name in ipairs(names) do
    local key = mailbox(name, lane)
    tasks = tasks + (lane == '' and 0 or call('ZCARD', key))
    longest = math.max(longest, waited_in(key) or -1)
  end
  looked_at = looked_at + #names + 1
  local n = #reply
  reply[n + 1], reply[n + 2] = lane == '' and -1 or call('ZCARD', IN_LANE .. lane), #names
  reply[n + 3], reply[n + 4] = tasks, integer(longest)
end
return reply
