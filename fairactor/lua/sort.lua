-- Moves the tasks of the common lane to lanes of their own, in steps, because no runtime serves the common lane any more.
--
-- KEYS  1 META of the shard
-- ARGV  1 the most tasks to move
-- Reply 1 if there is more to do, else 0
--
-- Safe to repeat: it goes on where the call before ended.

-- @include lib/intact.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/queues.lua

local LOOK, most = 50, tonumber(ARGV[1]) -- tenants, about, and tasks
if not lanes or call('HEXISTS', LANES, '') == 0 then return 0 end

local cursor = call('HGET', META, 'sorted') or '0'
local found, names = call('HSCAN', COUNTS, cursor, 'COUNT', LOOK), {}
local moved, looked = {}, 0 -- tenant -> its tasks that move; how many were looked at
for i = 1, #found[2], 2 do
  local name, ids = found[2][i], {}
  local waiting = looked < most and call('ZRANGE', QUEUE .. name, 0, most - looked - 1, 'WITHSCORES') or {}
  for j = 1, #waiting, 2 do
    local id, at = waiting[j], waiting[j + 1]
    local lane = lanes.of_task(id)
    if lane ~= '' then -- a record that cannot be read stays, until a runtime fails it
      local key = mailbox(name, lane)
      ids[#ids + 1], lane_queues[key] = id, lane_queues[key] or {}
      table.insert(lane_queues[key], exact(tonumber(at)))
      table.insert(lane_queues[key], id)
      lanes.add(name, '', -1)
      lanes.add(name, lane, 1, at)
    end
  end
  looked = looked + #waiting / 2
  if #ids > 0 then moved[name], names[#names + 1] = ids, name end
end
load_tenants(names)
update_ring(arriving)

begin_writing()
for name, ids in pairs(moved) do write_all('ZREM', QUEUE .. name, ids) end
write_queues()
local stays = looked >= most and #names > 0 -- the same tenants may have more
if stays or found[1] ~= '0' then
  call('HSET', META, 'sorted', stays and cursor or found[1])
else
  call('HDEL', META, 'sorted')
  call('HDEL', LANES, '')
end
save_shard()
return (stays or found[1] ~= '0') and 1 or 0
