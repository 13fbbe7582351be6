-- Repairs the lanes of a shard, and what it knows of the kinds of its runtimes.

-- @include lib/base.lua
-- @include lib/lanes.lua
-- @include lib/fleet.lua
-- @include lib/mend_limits.lua
-- @takes found, places, put_back, take_place from mend.lua

-- Returns the lane and the tenant in the key of a mailbox, or nil.
local function parse_mailbox(rest)
  local length, from = rest:match('^(%d+):()')
  if not length then return nil end
  local to = from + tonumber(length)
  return rest:sub(from, to - 1), rest:sub(to + 1)
end

local function repair_lanes()
  for _, rest in ipairs(found[LANE_QUEUE]) do
    local lane, name = parse_mailbox(rest)
    for _, id in ipairs(call('ZRANGE', LANE_QUEUE .. rest, 0, -1)) do
      local is_queued = lane and lane ~= '' and take_place(id, 'queued', name)
      if not (is_queued and put_back(id, lane)) then call('ZREM', LANE_QUEUE .. rest, id) end
    end
  end
end

-- Notes for each lane and tenant that there are tasks, or that there are none.
local function note_lanes()
  local stored, known = {}, {}
  for key, list in pairs(places) do
    write_all('ZADD', key, list)
    if key:sub(1, #(LANE_QUEUE)) == LANE_QUEUE then stored[#stored + 1] = key:sub(#(LANE_QUEUE) + 1) end
  end
  for _, name in ipairs(found[LANES_OF]) do call('DEL', LANES_OF .. name) end
  for _, rest in ipairs(stored) do
    local lane, name = parse_mailbox(rest)
    known[lane] = known[lane] or {}
    known[lane][name] = true
    local first = call('ZRANGE', LANE_QUEUE .. rest, 0, 0, 'WITHSCORES')
    call('ZADD', LANES_OF .. name, first[2], lane)
    call('ZADD', IN_LANE .. lane, 'NX', integer(shard.ms), name)
    call('HSETNX', LANES, lane, 0) -- what is true follows
  end
  for _, lane in ipairs(found[IN_LANE]) do
    for _, name in ipairs(call('ZRANGE', IN_LANE .. lane, 0, -1)) do
      if not (known[lane] and known[lane][name]) then call('ZREM', IN_LANE .. lane, name) end
    end
  end
  for _, lane in ipairs(call('HKEYS', LANES)) do
    if not known[lane] then call('HDEL', LANES, lane) end
  end
  if next(known) then shard.routed = true end
end

-- Deletes what is kept about kinds that there are not, and the rings of those for which this script does not act: they
-- are made again.
local function repair_kinds()
  local known, tables = {}, {}
  for kind in shard.kinds:gmatch('%d+') do known[kind] = true end
  for _, kind in ipairs(found[KIND]) do
    if not known[kind] then call('DEL', KIND .. kind) end
  end
  for _, kind in ipairs(found[KIND_IDLE]) do
    if not known[kind] then call('DEL', KIND_IDLE .. kind) end
  end
  local others = { [shard.ring] = false, [shard.groups] = false }
  for _, kind in ipairs(found[KIND_RING]) do others[KIND_RING .. kind] = others[KIND_RING .. kind] == nil end
  for _, kind in ipairs(found[KIND_GROUPS]) do others[KIND_GROUPS .. kind] = others[KIND_GROUPS .. kind] == nil end
  for _, rest in ipairs(found[KIND_GROUP]) do
    if rest:match('^(%d+):') ~= shard.kind then call('DEL', KIND_GROUP .. rest) end
  end
  if shard.kind ~= '0' then
    others[RING], others[GROUPS] = true, true
    for _, group in ipairs(found[GROUP]) do call('DEL', GROUP .. group) end
    found[GROUP] = {}
  end
  for key, goes in pairs(others) do
    if goes then call('DEL', key) end
  end
  for digest, kind in pairs(pairs_of(KIND_NUMBERS)) do
    if not known[kind] then call('HDEL', KIND_NUMBERS, digest) end
  end
  for runtime, kind in pairs(pairs_of(KIND_OF)) do
    if not known[kind] then call('HDEL', KIND_OF, runtime) end -- its next turn is asked to say again what it can run
  end
  for kind in pairs(known) do tables[kind] = read_table(kind) end
  if lanes and not shard.compat then revise_lanes(tables, true)() end
end
