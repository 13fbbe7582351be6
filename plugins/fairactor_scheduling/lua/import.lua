-- Takes schedules of a tenant that moves here from another shard, as they were there.
--
-- KEYS  1 META of the shard
-- ARGV  1 the plugins that the other shard depends on, as META has them, or '', 2 and on, for each schedule, packed:
--       {schedule, when it is due, or '', the actor that declares it, or '', {field, value, ...}}
-- Reply for each 1 if it need not stay at the other shard, 0 if the tenant has gone from here as well
--
-- Bounded: its caller gives it what export.lua has returned.
-- Safe to repeat: a schedule that is here stays as it is, and one that was removed here does not come back.

-- @include lib/intact.lua
-- @include lib/plugins.lua
-- @include own/lib.lua

local arriving, reply, needs_plugins = {}, {}, false
for i = 2, #ARGV do
  local schedule, due, actor, fields = unpack(cmsgpack.unpack(ARGV[i]))
  local is_gone = moving((owner_of(schedule))) == 'gone'
  reply[#reply + 1] = is_gone and 0 or 1
  if not is_gone and #fields > 0 and call('EXISTS', key_of(schedule), OWN .. 'removed:' .. schedule) == 0 then
    local values = {}
    for j = 1, #fields, 2 do values[fields[j]] = fields[j + 1] end
    needs_plugins = needs_plugins or (values.graph or '') ~= ''
    -- The due one is looked at once more: what it waits for may have ended on its way, and be a task of this shard.
    if values.state == 'active' then due = shard.wall_ms end
    arriving[#arriving + 1] = { schedule, tonumber(due), actor, fields }
  end
end
if #arriving == 0 then return reply end
for plugin in (needs_plugins and ARGV[1] or ''):gmatch('[^,]+') do depend_on(plugin) end

begin_writing()
write_these(later)
for _, arrival in ipairs(arriving) do
  local schedule, due, actor, fields = unpack(arrival)
  call('ZADD', OWN .. 'all', 0, schedule)
  if due then put_due(schedule, due) end
  if actor ~= '' then call('HSET', OWN .. 'declared', schedule, actor) end
  call('HSET', key_of(schedule), unpack(fields)) -- last, as in put.lua
end
write_these(last)
end_writing()
return reply
