-- Removes damage that would keep other scripts from running: keys of another type, and values that cannot be read.
--
-- It comes before all else that a repair does. What cannot be rebuilt it sets aside, under keys that no script reads and
-- that anybody may delete.

-- @include lib/damage_meta.lua
-- @include lib/base.lua
-- @takes COUNTS_FORMAT from lib/counts.lua
-- @takes HOLD from lib/plugins.lua
-- @takes KEEP_COSTS from lib/cost.lua

local RESERVATION, SESSION = 60000, '>c8Hc0' -- as in lib/room.lua and lib/session.lua
local REMEMBER_SENDS = 3600000 -- ms, as in send.lua
local KEEP_RECORDS = 604800000 -- ms: a settled record that nobody gave a time to live
local NEW_LEASE = 60000 -- ms, for a lease whose end makes no sense: a living runtime renews it
local CANCELED_OUTCOME = '{"error":{"type":"TaskCanceled","message":"by handle.cancel()"}}'
local now_us = shard.now

-- Returns what a key is for, the same for all keys of a kind, the rest of its name, and the type it has to have.
local function kind_of(key)
  local fixed = fixed_types[key]
  if fixed then return key, '', fixed end
  for _, with_prefix in ipairs(prefix_types) do
    if key:sub(1, #with_prefix[1]) == with_prefix[1] then
      return with_prefix[1], key:sub(#with_prefix[1] + 1), with_prefix[2]
    end
  end
  local plugin, rest = key:match('^:plugin:([^:]+):(.*)$', #META + 1)
  for _, of_plugin in ipairs(plugin and PLUGIN_TYPES or {}) do
    if of_plugin[1] == plugin
      and (of_plugin[2] == rest or of_plugin[3] and rest:sub(1, #of_plugin[2]) == of_plugin[2]) then
      return nil, '', of_plugin[4]
    end
  end
end

-- Whether a value is packed in this format, and all its numbers are finite.
local function is_packed(format, value)
  local parts = { pcall(struct.unpack, format, value) }
  if not parts[1] then return false end
  for i = 2, #parts do
    if type(parts[i]) == 'number' and not finite(parts[i]) then return false end
  end
  return true, parts
end

local function is_counts(value)
  local fits, parts = is_packed(COUNTS_FORMAT, value)
  return #value == 65 and fits and parts[10] >= 0 and parts[11] >= 0 and parts[12] >= 0
end

local function is_json(value)
  local ok, decoded = pcall(cjson.decode, value)
  return ok and type(decoded) == 'table'
end

local function is_message_pack(value)
  local ok, decoded = pcall(cmsgpack.unpack, value)
  return ok and type(decoded) == 'table' and decoded
end

-- Returns packed settings, or false.
local function settings_in(value)
  local kind = value:byte() or 0
  local is_map = kind >= 128 and kind < 144 or kind == 222 or kind == 223 or value == '\144' -- or an empty table
  return is_map and is_message_pack(value)
end

local function is_policy(value)
  local policy = settings_in(value)
  if not policy then return false end
  local function fits(setting, kind)
    local found = policy[setting]
    return found == nil or (type(found) == kind and (kind ~= 'number' or found == found and found > 0))
  end
  local rate = policy.rate
  local rate_fits = rate == nil or (type(rate) == 'table' and finite(rate[2]) and finite(rate[3]) and rate[2] >= 0)
  return rate_fits and fits('weight', 'number') and (not policy.weight or policy.weight < math.huge)
    and fits('concurrency', 'number') and fits('backlog', 'number') and fits('group', 'string')
    and fits('paused', 'boolean') and fits('moving', 'string')
end

local function is_limit(value)
  local limit = settings_in(value)
  if not limit then return false end
  for _, settings in ipairs({ limit, type(limit.declared) == 'table' and limit.declared or {} }) do
    local rate, concurrency, paused = settings.rate, settings.concurrency, settings.paused
    local rate_fits = rate == nil or type(rate) == 'table' and finite(rate[2]) and finite(rate[3]) and rate[2] >= 0
    local fits = (concurrency == nil or type(concurrency) == 'number' and concurrency > 0)
      and (paused == nil or type(paused) == 'number' and finite(paused))
    if not (rate_fits and fits) then return false end
  end
  return limit.declared == nil or type(limit.declared) == 'table'
end

local function is_watchers(value)
  local runtimes = is_message_pack(value)
  if not runtimes or #runtimes == 0 then return false end
  for _, runtime in ipairs(runtimes) do
    if type(runtime) ~= 'string' then return false end
  end
  return true
end

-- Whether the 8 bytes are the number of a turn or a batch: nobody takes so many.
local function is_number(packed) return struct.unpack('>I8', packed) < LARGEST end

local function is_session(value)
  local fits, parts = is_packed(SESSION, value)
  return fits and is_number(parts[2]) and is_message_pack(value:sub(parts[4]))
end

local function is_mark(value)
  local fits, parts = is_packed(MARK, value)
  local length = fits and parts[7] or 0
  local readable = length == 0 or length < #value - 65 and pcall(cmsgpack.unpack, value:sub(-length))
  return fits and #value > 65 and parts[4] >= 1 and parts[4] <= CRITICAL and readable
end

local function is_of_kind(value) return value:match('^%d+$') or value:match('^%d+ %x*$') end
local function is_kind(value) return value:match('^%d+$') end
local function is_cost(value, field) return is_packed((field == '' or field:byte() == 31) and '>ddd' or '>d', value) end
local function is_keyed(value) return #value > 8 and is_packed('>d', value) end
local function is_cancel(value) return is_packed('>d', value) end
local function is_reservation(value) return is_packed('>dd', value) end

local function expires_in(key, ms)
  if call('PTTL', key) == -1 then
    call('PEXPIRE', key, ms)
    note_repair(key, 'it did not expire')
  end
end

local function drop_field(key, field)
  call('HDEL', key, field)
  note_repair(key, 'the value of ' .. field .. ' could not be read')
end

local function drop_member(key, member)
  call('ZREM', key, member)
  note_repair(key, 'the score of ' .. member .. ' made no sense')
end

-- Replaces values that cannot be read by one that can.
local function replace_by(value, before, after)
  return function(key, field)
    call('HSET', key, field, value)
    note_repair(key, before .. field .. after)
  end
end

local function set_aside_as(why)
  return function(key, field, value) set_field_aside(key, field, value, why) end
end

local function is_between(least, most)
  return function(value) return in_range(value, least, most) end
end

-- What the values of hashes, and the scores of sorted sets, have to be, and what happens to others: key -> check, what happens.
local of_hashes = {
  [COUNTS] = { is_counts, drop_field },
  [POLICY] = { is_policy, set_aside_as('not the policy of') },
  [LIMIT_SETTINGS] = { is_limit, set_aside_as('not the settings of') },
  [LIMIT_BUSY] = { is_between(0, CENTURY), drop_field },
  [GROUPS] = { is_between(0, LARGEST), drop_field },
  [HOMES] = { is_between(0, LARGEST), replace_by(0, 'the virtual time of ', ' made no sense') },
  [WATCHERS] = { is_watchers, drop_field },
  [SESSIONS] = { is_session, drop_field },
  [FLEET] = { is_json, replace_by('{}', 'the description of ', ' could not be read') },
  [PROGRESS] = { is_json, drop_field },
  [KEYED] = { is_keyed, drop_field },
  [AGAIN] = { function(value) return value ~= '' end, drop_field },
  [HELD] = { function(value) return is_packed(HOLD, value) end, set_aside_as('not what holds back') },
  [KIND_OF] = { is_kind, drop_field },
  [KIND_NUMBERS] = { is_kind, drop_field },
  [KIND] = { is_of_kind, function(key)
    if call('EXISTS', key) == 1 then note_repair(key, 'what runtimes can run could not be read') end
    call('DEL', key) -- they say it again
  end },
  [ROUTES] = { function(value) return value == '1' end, drop_field },
  [LANES] = { is_between(0, CENTURY), replace_by(0, 'since when ', ' is not served made no sense') },
  [KIND_GROUPS] = { is_between(0, LARGEST), drop_field },
  [CLAIMS] = { is_mark, drop_field },
  [CANCELS] = { is_cancel,
    replace_by(struct.pack('>d', KEEP_RECORDS) .. CANCELED_OUTCOME, 'the cancellation of ', ' could not be read') },
  [COSTS] = { is_cost, drop_field },
  [RESERVED] = { is_reservation, drop_field },
}
local is_tag, is_far = is_between(-LARGEST, LARGEST), is_between(0, now_us + CENTURY)
local of_sorted_sets = {
  [LIMIT_DUES] = { is_far, drop_member },
  [IN_LANE] = { is_between(0, CENTURY), drop_member },
  [KIND_RING] = { is_tag, drop_member },
  [KIND_GROUP] = { is_tag, drop_member },
  [RING] = { is_tag, drop_member },
  [GROUP] = { is_tag, drop_member },
  [RATES] = { is_between(-now_us, now_us + CENTURY), drop_member },
  [DRAINED] = { is_between(0, 4294967295), drop_member },
  [DEAD] = { is_between(0, now_us * 100), drop_member },
  [SUSPECTED] = { is_far, drop_member },
  [DELAYED] = { is_between(0, LARGEST), drop_member },
  [SCHEDULED] = { is_between(0, LARGEST), drop_member },
  [LEASES] = { is_between(0, now_us / 1000 + CENTURY / 1000), function(key, runtime)
    call('ZADD', key, integer(shard.ms + NEW_LEASE), runtime)
    note_repair(key, 'the end of the lease of ' .. runtime .. ' made no sense')
  end },
}

-- Looks at the header of a record.
local function check_record(key, id)
  local header = call('GETRANGE', key, 0, 600)
  local fits, parts = is_packed(HEADER, header)
  local found = header:sub(1, 1)
  if #header < 15 or header:byte(3) < 1 or header:byte(3) > CRITICAL
    or not (found == LIVE or found == DONE or found == DEAD_STATE or found == CANCELED_STATE)
    or #header < 15 + 256 * header:byte(14) + header:byte(15) then
    return set_key_aside(key, 'is no record of a task')
  end
  if not fits or not in_range(parts[6], 0, LARGEST * 1000) then
    call('SETRANGE', key, 5, struct.pack('>d', now_us))
    note_repair(key, 'its time made no sense')
  end
  if found == LIVE then call('PERSIST', key) else expires_in(key, KEEP_RECORDS) end
  list(TASK, id)
end

local at_once = { -- what to look at besides
  [COSTS] = function(key) expires_in(key, KEEP_COSTS) end,
  [RESERVED] = function(key) expires_in(key, RESERVATION) end,
  [MOVER] = function(key) expires_in(key, NEW_LEASE) end,
  [ENDED_LAST] = function(key) expires_in(key, KEEP_RECORDS) end,
  [SENT] = function(key)
    local stored = call('GET', key)
    if #stored > 8 and is_number(stored) and pcall(cmsgpack.unpack, stored:sub(9)) then
      return expires_in(key, REMEMBER_SENDS)
    end
    call('DEL', key)
    note_repair(key, 'it could not be read')
  end,
  [LANE_QUEUE] = function() call('HSET', META, 'lanes', '1') end, -- perhaps nothing else says that there are lanes
}

-- Looks at the type of a key, and lists those that later phases walk over.
local function check_key(key)
  local kind, rest, wanted = kind_of(key)
  spend(2)
  if kind == MENDING or kind == MENDED or kind == MENDING_LIST or not wanted or not has_type(key, wanted) then return end
  if not kind then return end -- a plugin's
  if kind == TASK then
    spend(4)
    return check_record(key, rest)
  end
  if at_once[kind] then at_once[kind](key) end
  if rest ~= '' then list(kind, rest) end
end

-- A runtime with tenants of its own is a dedicated one.
local function rebuild_homes(runtime, key)
  spend(3)
  if call('EXISTS', key) == 1 and call('ZSCORE', LEASES, runtime) and call('HEXISTS', HOMES, runtime) == 0 then
    call('HSET', HOMES, runtime, 0)
    note_repair(HOMES, runtime .. ' serves tenants of its own again')
  end
end

-- Returns the phase that looks at the values of keys with a prefix, or of one key.
local function phase_of(key, scan, checks)
  local is_right, otherwise = unpack(checks)
  local phase = { scan = scan, run = function(_, flat, checked)
    spend(#flat / 2)
    for i = 1, #flat, 2 do
      local field, value = flat[i], flat[i + 1]
      if not is_right(value, field) then
        spend(2)
        otherwise(checked, field, value)
      elseif key == COUNTS then
        list(TENANTS, field)
      end
    end
  end }
  if fixed_types[key] then phase.keys = { key } else phase.over = key end
  return phase
end

-- Returns the phases that remove damage, after the first one that looks at all keys. They are in order: the number of a phase
-- has to mean the same in each call.
local function damage_phases(first)
  local phases = { first }
  for _, each in ipairs({ { 'HSCAN', of_hashes }, { 'ZSCAN', of_sorted_sets } }) do
    local checked = {}
    for key in pairs(each[2]) do checked[#checked + 1] = key end
    table.sort(checked)
    for _, key in ipairs(checked) do phases[#phases + 1] = phase_of(key, each[1], each[2][key]) end
  end
  phases[#phases + 1] = { over = ASSIGNED, run = rebuild_homes }
  phases[#phases + 1] = { over = STEAL, run = rebuild_homes }
  return phases
end
