-- Repairs what follows tasks with keys (see replace.lua), and deduplication keys.

-- @include lib/mend_tasks.lua
-- @include lib/ending.lua

local function is_key_of(task, key)
  local prefix = #task.name .. ':' .. task.name
  return key:sub(1, #prefix) == prefix
end

local function follows_another(id) return (known('t', id) or ''):sub(1, 1) == FOLLOWS end

-- Lets a task follow the owner of its key, or makes it the owner. Returns whether it follows.
local function repair_follower(id, field)
  local task, key = task_of(id), field:sub(9)
  if not lives(id) then return false end
  if follows_another(id) then return true end
  local fits = #field > 8 and is_key_of(task, key)
  local owner = fits and call('GET', KEY .. key)
  local owns = owner and owner ~= id and lives(owner) and task_of(owner).name == task.name
  local before = owns and known('a', owner)
  if owns and (not before or before == id) and take_place(id, FOLLOWS .. owner, nil, DEFERRED) then
    note('a', owner, id)
    call('HSET', KEYED, id, field)
    call('HSET', AGAIN, owner, id)
    return true
  elseif fits and not owns then
    call('SET', KEY .. key, id)
    call('HSET', KEYED, id, field)
  end
  return false
end

-- Finds the tasks that follow another one with their key, before all other places: the script that lets one go ends the
-- other one first. If that has happened, the task gets the key and, as it then has no place, one by its stamp.
local function repair_followers(_, flat)
  for i = 1, #flat, 2 do
    local id, readable_hold, _, _, _, holder, at = flat[i], pcall(struct.unpack, HOLD, flat[i + 1])
    spend(2)
    if readable_hold and holder == FOLLOWER then
      spend(8)
      if not repair_follower(id, flat[i + 1]:sub(at)) then call('HDEL', HELD, id) end
    end
  end
end

local function repair_again(_, flat)
  for i = 1, #flat, 2 do
    spend(2)
    if known('a', flat[i]) ~= flat[i + 1] then call('HDEL', AGAIN, flat[i]) end
  end
end

-- Whether a live task owns a key, and does not follow another one with it.
local function owns_key(id, key)
  local packed = lives(id) and call('HGET', KEYED, id)
  return packed and select(2, unpack_key(packed)) == key and not follows_another(id)
end

local function repair_keyed(_, flat)
  for i = 1, #flat, 2 do
    local id, task = flat[i], task_of(flat[i])
    spend(6)
    keyed[id] = flat[i + 1]
    local name = select(2, unpack_key(keyed[id]))
    local owner = call('GET', KEY .. name)
    if follows_another(id) then -- its key is that of the task before it
    elseif lives(id) and (owner and owner ~= id and owns_key(owner, name) or not is_key_of(task, name)) then
      call('HDEL', KEYED, id)
      report('r', KEYED .. ': the key of ' .. id .. ' is not its own')
    elseif lives(id) then
      call('SET', KEY .. name, id)
    elseif owner == id then
      free_key(id, task and task.state)
    else
      call('HDEL', KEYED, id)
    end
  end
end

-- Returns the window of a key, in ms, if a live task owns it; else nil. Nowhere else do scripts parse JSON.
local function window_of(id, key)
  local task = task_of(id)
  if not lives(id) or not is_key_of(task, key) then return nil end
  local record = call('GET', TASK .. id)
  spend(#record / 1000)
  local read, sent = pcall(cjson.decode, record:match('^[^\n]*', (select(7, struct.unpack(HEADER, record)))))
  local options = read and type(sent) == 'table' and type(sent[4]) == 'table' and sent[4] or {}
  local own = key:sub(#(#task.name .. ':' .. task.name) + 1)
  if options.key ~= nil and options.key ~= own then return nil end
  return math.floor((tonumber(options.key_window) or 0) * 1000 + 0.5)
end

local function repair_key(key)
  local id = call('GET', KEY .. key)
  spend(3)
  if not id or call('PTTL', KEY .. key) ~= -1 or call('HEXISTS', KEYED, id) == 1 then return end
  local window = window_of(id, key)
  if window then
    call('HSET', KEYED, id, struct.pack('>d', window) .. key)
    report('r', KEYED .. ': ' .. id .. ' has its key again')
  else
    call('DEL', KEY .. key)
  end
end
