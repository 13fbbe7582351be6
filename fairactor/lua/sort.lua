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

local LOOK, PAGES = 50, 4 -- tenants, about, and pages of the tasks of each
local most = tonumber(ARGV[1])
local cursor = lanes and call('HGET', META, 'sorting')
if not cursor then return 0 end

local found, names = call('HSCAN', COUNTS, cursor, 'COUNT', LOOK), {}
local moved, number = {}, 0 -- tenant -> its tasks that move; how many

-- Moves a task of a tenant that stands at this place. Returns whether it has a lane: a record that cannot be read has none,
-- and stays until a runtime fails it.
local function move(name, id, at)
  local lane = lanes.of_task(id)
  if lane == '' then return false end
  local key = mailbox(name, lane)
  lane_queues[key] = lane_queues[key] or {}
  table.insert(lane_queues[key], exact(tonumber(at)))
  table.insert(lane_queues[key], id)
  lanes.add(name, '', -1)
  lanes.add(name, lane, 1, at)
  return true
end

for i = 1, #found[2], 2 do
  local name, ids, page, waiting = found[2][i], {}, 0, nil
  repeat
    waiting = number < most and call('ZRANGE', QUEUE .. name, page * most, (page + 1) * most - 1, 'WITHSCORES') or {}
    for j = 1, #waiting, 2 do
      if number < most and move(name, waiting[j], waiting[j + 1]) then ids[#ids + 1], number = waiting[j], number + 1 end
    end
    page = page + 1
  until #waiting < 2 * most or number == most or page == PAGES
  if #ids > 0 then moved[name], names[#names + 1] = ids, name end
end
load_tenants(names)
update_ring(arriving)

begin_writing()
for name, ids in pairs(moved) do write_all('ZREM', QUEUE .. name, ids) end
write_queues()
local next_cursor = number == most and cursor or found[1] -- the same tenants may have more
local more = number == most or next_cursor ~= '0'
if more then call('HSET', META, 'sorting', next_cursor) else call('HDEL', META, 'sorting') end
save_shard()
return more and 1 or 0
