-- Delayed tasks. Each tenant has its own, by the time at which they are due; SCHEDULED says when the next one of each
-- tenant is due.

-- @include lib/base.lua

local delayed = {} -- tenant -> ms, id, ms, id, ...: to write

-- Puts a task among the delayed ones, due at `at` in ms.
local function delay(name, id, at)
  local list = delayed[name]
  if not list then
    list = {}
    delayed[name] = list
  end
  list[#list + 1], list[#list + 2] = integer(at), id
end

-- Writes them. A time that has passed counts as now in SCHEDULED: by an old one no tenant gets before the others.
local function write_delayed()
  if not next(delayed) then return end
  local times = {}
  for name, list in pairs(delayed) do
    local first = tonumber(list[1])
    for i = 3, #list, 2 do first = math.min(first, tonumber(list[i])) end
    write_all('ZADD', DELAYED .. name, list)
    times[#times + 1], times[#times + 2] = integer(math.max(first, shard.ms)), name
    delayed[name] = nil
  end
  for i = 1, #times, SLICE do
    call('ZADD', SCHEDULED, 'LT', unpack(times, i, math.min(i + SLICE - 1, #times)))
  end
end
