-- Notes what a task waits for; ends.lua looks at it once the batch is accepted. `data.dependencies` may have `parents`,
-- ids; `tenants` of these, or '' for any; `shards` of these: HERE, a number, or NOTIFIES if that shard notifies by
-- itself; `rule`; `keep`, ms to keep the record if it is canceled; `token`, for results in its arguments; `wants`, the
-- indexes of their parents; `gate`, the run whose gate has to open; `many`, how many parents it has
-- if these follow (fill.lua); `shard`, its own; `home`, the number of its shard, as the sender knows it; `feeds`, tasks of other shards that
-- wait for it: {shard, index, whether it wants the result, id}, ...; `item`, for an item of an `each()`: the joining task, and its number, from 1.

-- @takes write_all from lib/base.lua

local waits = data.dependencies
if waits.home and waits.home ~= tonumber(KEYS[1]:match('/(%d+)}$')) then -- what it waits for was planned for there
  error('GONE the tenant has moved to another shard', 0) -- Redis 6.2 takes no table
end
mine.in_batch = mine.in_batch or {}
mine.in_batch[id] = name
if waits.parents or waits.gate then
  mine.sent = mine.sent or {}
  mine.sent[#mine.sent + 1] = { id, waits }
  hold()
end
for _, fed in ipairs(waits.feeds or {}) do
  mine.feeds = mine.feeds or {}
  mine.feeds[#mine.feeds + 1] = { id, fed }
end
local HERE, LATE = 65535, 604800000 -- as in ends.lua
if waits.item then
  local joined, index = waits.item[1], waits.item[2]
  mine.maps = mine.maps or {}
  local map = mine.maps[joined]
  if not map then
    local many, accepted, open = (call('GET', OWN .. 'map:' .. joined) or ''):match('^(%d+):(%d+):(%a)$')
    map = { many = many, accepted = tonumber(accepted) or 0, open = open == 'o', entries = {} }
    mine.maps[joined] = map
    later[#later + 1] = function() if #map.entries > 0 then write_all('HSET', OWN .. 'of:t', map.entries) end end
    last[#last + 1] = function() -- after the records: a repeat has to accept them
      if map.open then call('SET', OWN .. 'map:' .. joined, map.many .. ':' .. map.accepted .. ':o', 'PX', LATE) end
    end
  end
  if map.open and index > map.accepted then
    map.accepted = index
    map.entries[#map.entries + 1] = id
    map.entries[#map.entries + 1] = struct.pack('>HBHBI4Hc0', 1, 0, HERE, 1, index + 1, #joined, joined)
  else -- its run was canceled, or it ran long ago
    mine.sent = mine.sent or {}
    mine.sent[#mine.sent + 1] = { id, { refused = waits.item, keep = waits.keep } }
    hold()
  end
end
