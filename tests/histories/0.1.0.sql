BEGIN TRANSACTION;
CREATE TABLE entries (
    position   INTEGER PRIMARY KEY,
    entity     TEXT NOT NULL,
    n          INTEGER NOT NULL,
    seq        INTEGER NOT NULL,
    events     TEXT,
    command_id TEXT NOT NULL,
    verdict    INTEGER NOT NULL,
    reply      TEXT NOT NULL,
    at         INTEGER NOT NULL
);
INSERT INTO "entries" VALUES(1,'account/alice',1,1,'[["Deposited",{"amount":1}]]','pay-0',0,'1',1795572827428);
INSERT INTO "entries" VALUES(2,'account/alice',2,2,'[["Deposited",{"amount":2}]]','pay-1',0,'3',1795572827429);
INSERT INTO "entries" VALUES(3,'account/alice',3,3,'[["Deposited",{"amount":3}]]','pay-2',0,'6',1795572827429);
INSERT INTO "entries" VALUES(4,'account/alice',4,4,'[["Deposited",{"amount":4}]]','pay-3',0,'10',1795572827430);
INSERT INTO "entries" VALUES(5,'account/alice',5,5,'[["Deposited",{"amount":5}]]','pay-4',0,'15',1795572827431);
INSERT INTO "entries" VALUES(6,'account/alice',6,6,'[["Deposited",{"amount":6}]]','pay-5',0,'21',1795572827431);
INSERT INTO "entries" VALUES(7,'account/alice',7,7,'[["Deposited",{"amount":7}]]','pay-6',0,'28',1795572827432);
INSERT INTO "entries" VALUES(8,'account/alice',8,8,'[["Deposited",{"amount":8}]]','pay-7',0,'36',1795572827433);
INSERT INTO "entries" VALUES(9,'account/alice',9,9,'[["Deposited",{"amount":9}]]','pay-8',0,'45',1795572827433);
INSERT INTO "entries" VALUES(10,'account/alice',10,10,'[["Deposited",{"amount":10}]]','pay-9',0,'55',1795572827434);
INSERT INTO "entries" VALUES(11,'account/alice',11,11,'[["Deposited",{"amount":11}]]','pay-10',0,'66',1795572827434);
INSERT INTO "entries" VALUES(12,'account/alice',12,12,'[["Deposited",{"amount":12}]]','pay-11',0,'78',1795572827435);
INSERT INTO "entries" VALUES(13,'account/alice',13,13,'[["Deposited",{"amount":13}]]','pay-12',0,'91',1795572827436);
INSERT INTO "entries" VALUES(14,'account/alice',14,14,'[["Deposited",{"amount":14}]]','pay-13',0,'105',1795572827436);
INSERT INTO "entries" VALUES(15,'account/alice',15,15,'[["Deposited",{"amount":15}]]','pay-14',0,'120',1795572827437);
INSERT INTO "entries" VALUES(16,'account/alice',16,16,'[["Deposited",{"amount":16}]]','pay-15',0,'136',1795572827437);
INSERT INTO "entries" VALUES(17,'account/alice',17,17,'[["Deposited",{"amount":17}]]','pay-16',0,'153',1795572827438);
INSERT INTO "entries" VALUES(18,'account/alice',18,18,'[["Deposited",{"amount":18}]]','pay-17',0,'171',1795572827438);
INSERT INTO "entries" VALUES(19,'account/alice',19,19,'[["Deposited",{"amount":19}]]','pay-18',0,'190',1795572827439);
INSERT INTO "entries" VALUES(20,'account/alice',20,20,'[["Deposited",{"amount":20}]]','pay-19',0,'210',1795572827439);
INSERT INTO "entries" VALUES(21,'account/alice',21,21,'[["Deposited",{"amount":21}]]','pay-20',0,'231',1795572827440);
INSERT INTO "entries" VALUES(22,'account/alice',22,22,'[["Deposited",{"amount":22}]]','pay-21',0,'253',1795572827440);
INSERT INTO "entries" VALUES(23,'account/alice',23,23,'[["Deposited",{"amount":23}]]','pay-22',0,'276',1795572827441);
INSERT INTO "entries" VALUES(24,'account/alice',24,24,'[["Deposited",{"amount":24}]]','pay-23',0,'300',1795572827441);
INSERT INTO "entries" VALUES(25,'account/alice',25,25,'[["Deposited",{"amount":25}]]','pay-24',0,'325',1795572827442);
INSERT INTO "entries" VALUES(26,'account/alice',26,26,'[["Deposited",{"amount":26}]]','pay-25',0,'351',1795572827442);
INSERT INTO "entries" VALUES(27,'account/alice',27,27,'[["Deposited",{"amount":27}]]','pay-26',0,'378',1795572827443);
INSERT INTO "entries" VALUES(28,'account/alice',28,28,'[["Deposited",{"amount":28}]]','pay-27',0,'406',1795572827443);
INSERT INTO "entries" VALUES(29,'account/alice',29,29,'[["Deposited",{"amount":29}]]','pay-28',0,'435',1795572827444);
INSERT INTO "entries" VALUES(30,'account/alice',30,30,'[["Deposited",{"amount":30}]]','pay-29',0,'465',1795572827444);
INSERT INTO "entries" VALUES(31,'account/alice',31,31,'[["Deposited",{"amount":31}]]','pay-30',0,'496',1795572827445);
INSERT INTO "entries" VALUES(32,'account/alice',32,32,'[["Deposited",{"amount":32}]]','pay-31',0,'528',1795572827445);
INSERT INTO "entries" VALUES(33,'account/alice',33,33,'[["Deposited",{"amount":33}]]','pay-32',0,'561',1795572827446);
INSERT INTO "entries" VALUES(34,'account/alice',34,34,'[["Deposited",{"amount":34}]]','pay-33',0,'595',1795572827446);
INSERT INTO "entries" VALUES(35,'account/alice',35,35,'[["Deposited",{"amount":35}]]','pay-34',0,'630',1795572827447);
INSERT INTO "entries" VALUES(36,'account/alice',36,36,'[["Deposited",{"amount":36}]]','pay-35',0,'666',1795572827447);
INSERT INTO "entries" VALUES(37,'account/alice',37,37,'[["Deposited",{"amount":37}]]','pay-36',0,'703',1795572827448);
INSERT INTO "entries" VALUES(38,'account/alice',38,38,'[["Deposited",{"amount":38}]]','pay-37',0,'741',1795572827448);
INSERT INTO "entries" VALUES(39,'account/alice',39,39,'[["Deposited",{"amount":39}]]','pay-38',0,'780',1795572827449);
INSERT INTO "entries" VALUES(40,'account/alice',40,40,'[["Deposited",{"amount":40}]]','pay-39',0,'820',1795572827449);
INSERT INTO "entries" VALUES(41,'account/alice',41,41,'[["Deposited",{"amount":41}]]','pay-40',0,'861',1795572827450);
INSERT INTO "entries" VALUES(42,'account/alice',42,42,'[["Deposited",{"amount":42}]]','pay-41',0,'903',1795572827450);
INSERT INTO "entries" VALUES(43,'account/alice',43,43,'[["Deposited",{"amount":43}]]','pay-42',0,'946',1795572827451);
INSERT INTO "entries" VALUES(44,'account/alice',44,44,'[["Deposited",{"amount":44}]]','pay-43',0,'990',1795572827451);
INSERT INTO "entries" VALUES(45,'account/alice',45,45,'[["Deposited",{"amount":45}]]','pay-44',0,'1035',1795572827452);
INSERT INTO "entries" VALUES(46,'account/alice',46,46,'[["Deposited",{"amount":46}]]','pay-45',0,'1081',1795572827453);
INSERT INTO "entries" VALUES(47,'account/alice',47,47,'[["Deposited",{"amount":47}]]','pay-46',0,'1128',1795572827453);
INSERT INTO "entries" VALUES(48,'account/alice',48,48,'[["Deposited",{"amount":48}]]','pay-47',0,'1176',1795572827454);
INSERT INTO "entries" VALUES(49,'account/alice',49,49,'[["Deposited",{"amount":49}]]','pay-48',0,'1225',1795572827454);
INSERT INTO "entries" VALUES(50,'account/alice',50,50,'[["Deposited",{"amount":50}]]','pay-49',0,'1275',1795572827455);
INSERT INTO "entries" VALUES(51,'account/alice',51,51,'[["Deposited",{"amount":51}]]','pay-50',0,'1326',1795572827455);
INSERT INTO "entries" VALUES(52,'account/alice',52,52,'[["Deposited",{"amount":52}]]','pay-51',0,'1378',1795572827456);
INSERT INTO "entries" VALUES(53,'account/alice',53,53,'[["Deposited",{"amount":53}]]','pay-52',0,'1431',1795572827456);
INSERT INTO "entries" VALUES(54,'account/alice',54,54,'[["Deposited",{"amount":54}]]','pay-53',0,'1485',1795572827457);
INSERT INTO "entries" VALUES(55,'account/alice',55,55,'[["Deposited",{"amount":55}]]','pay-54',0,'1540',1795572827458);
INSERT INTO "entries" VALUES(56,'account/alice',56,56,'[["Deposited",{"amount":56}]]','pay-55',0,'1596',1795572827458);
INSERT INTO "entries" VALUES(57,'account/alice',57,57,'[["Deposited",{"amount":57}]]','pay-56',0,'1653',1795572827459);
INSERT INTO "entries" VALUES(58,'account/alice',58,58,'[["Deposited",{"amount":58}]]','pay-57',0,'1711',1795572827459);
INSERT INTO "entries" VALUES(59,'account/alice',59,59,'[["Deposited",{"amount":59}]]','pay-58',0,'1770',1795572827460);
INSERT INTO "entries" VALUES(60,'account/alice',60,60,'[["Deposited",{"amount":60}]]','pay-59',0,'1830',1795572827460);
INSERT INTO "entries" VALUES(61,'account/alice',61,61,'[["Deposited",{"amount":61}]]','pay-60',0,'1891',1795572827461);
INSERT INTO "entries" VALUES(62,'account/alice',62,62,'[["Deposited",{"amount":62}]]','pay-61',0,'1953',1795572827461);
INSERT INTO "entries" VALUES(63,'account/alice',63,63,'[["Deposited",{"amount":63}]]','pay-62',0,'2016',1795572827462);
INSERT INTO "entries" VALUES(64,'account/alice',64,64,'[["Deposited",{"amount":64}]]','pay-63',0,'2080',1795572827463);
INSERT INTO "entries" VALUES(65,'account/alice',65,65,'[["Deposited",{"amount":65}]]','pay-64',0,'2145',1795572827463);
INSERT INTO "entries" VALUES(66,'account/alice',66,66,'[["Deposited",{"amount":66}]]','pay-65',0,'2211',1795572827464);
INSERT INTO "entries" VALUES(67,'account/alice',67,67,'[["Deposited",{"amount":67}]]','pay-66',0,'2278',1795572827464);
INSERT INTO "entries" VALUES(68,'account/alice',68,68,'[["Deposited",{"amount":68}]]','pay-67',0,'2346',1795572827465);
INSERT INTO "entries" VALUES(69,'account/alice',69,69,'[["Deposited",{"amount":69}]]','pay-68',0,'2415',1795572827465);
INSERT INTO "entries" VALUES(70,'account/alice',70,70,'[["Deposited",{"amount":70}]]','pay-69',0,'2485',1795572827466);
INSERT INTO "entries" VALUES(71,'account/alice',71,71,'[["Deposited",{"amount":71}]]','pay-70',0,'2556',1795572827466);
INSERT INTO "entries" VALUES(72,'account/alice',72,72,'[["Deposited",{"amount":72}]]','pay-71',0,'2628',1795572827467);
INSERT INTO "entries" VALUES(73,'account/alice',73,73,'[["Deposited",{"amount":73}]]','pay-72',0,'2701',1795572827468);
INSERT INTO "entries" VALUES(74,'account/alice',74,74,'[["Deposited",{"amount":74}]]','pay-73',0,'2775',1795572827468);
INSERT INTO "entries" VALUES(75,'account/alice',75,75,'[["Deposited",{"amount":75}]]','pay-74',0,'2850',1795572827469);
INSERT INTO "entries" VALUES(76,'account/alice',76,76,'[["Deposited",{"amount":76}]]','pay-75',0,'2926',1795572827470);
INSERT INTO "entries" VALUES(77,'account/alice',77,77,'[["Deposited",{"amount":77}]]','pay-76',0,'3003',1795572827470);
INSERT INTO "entries" VALUES(78,'account/alice',78,78,'[["Deposited",{"amount":78}]]','pay-77',0,'3081',1795572827471);
INSERT INTO "entries" VALUES(79,'account/alice',79,79,'[["Deposited",{"amount":79}]]','pay-78',0,'3160',1795572827471);
INSERT INTO "entries" VALUES(80,'account/alice',80,80,'[["Deposited",{"amount":80}]]','pay-79',0,'3240',1795572827472);
INSERT INTO "entries" VALUES(81,'account/alice',81,81,'[["Deposited",{"amount":81}]]','pay-80',0,'3321',1795572827472);
INSERT INTO "entries" VALUES(82,'account/alice',82,82,'[["Deposited",{"amount":82}]]','pay-81',0,'3403',1795572827473);
INSERT INTO "entries" VALUES(83,'account/alice',83,83,'[["Deposited",{"amount":83}]]','pay-82',0,'3486',1795572827473);
INSERT INTO "entries" VALUES(84,'account/alice',84,84,'[["Deposited",{"amount":84}]]','pay-83',0,'3570',1795572827474);
INSERT INTO "entries" VALUES(85,'account/alice',85,85,'[["Deposited",{"amount":85}]]','pay-84',0,'3655',1795572827474);
INSERT INTO "entries" VALUES(86,'account/alice',86,86,'[["Deposited",{"amount":86}]]','pay-85',0,'3741',1795572827475);
INSERT INTO "entries" VALUES(87,'account/alice',87,87,'[["Deposited",{"amount":87}]]','pay-86',0,'3828',1795572827475);
INSERT INTO "entries" VALUES(88,'account/alice',88,88,'[["Deposited",{"amount":88}]]','pay-87',0,'3916',1795572827476);
INSERT INTO "entries" VALUES(89,'account/alice',89,89,'[["Deposited",{"amount":89}]]','pay-88',0,'4005',1795572827477);
INSERT INTO "entries" VALUES(90,'account/alice',90,90,'[["Deposited",{"amount":90}]]','pay-89',0,'4095',1795572827477);
INSERT INTO "entries" VALUES(91,'account/alice',91,91,'[["Deposited",{"amount":91}]]','pay-90',0,'4186',1795572827478);
INSERT INTO "entries" VALUES(92,'account/alice',92,92,'[["Deposited",{"amount":92}]]','pay-91',0,'4278',1795572827478);
INSERT INTO "entries" VALUES(93,'account/alice',93,93,'[["Deposited",{"amount":93}]]','pay-92',0,'4371',1795572827479);
INSERT INTO "entries" VALUES(94,'account/alice',94,94,'[["Deposited",{"amount":94}]]','pay-93',0,'4465',1795572827480);
INSERT INTO "entries" VALUES(95,'account/alice',95,95,'[["Deposited",{"amount":95}]]','pay-94',0,'4560',1795572827480);
INSERT INTO "entries" VALUES(96,'account/alice',96,96,'[["Deposited",{"amount":96}]]','pay-95',0,'4656',1795572827481);
INSERT INTO "entries" VALUES(97,'account/alice',97,97,'[["Deposited",{"amount":97}]]','pay-96',0,'4753',1795572827481);
INSERT INTO "entries" VALUES(98,'account/alice',98,98,'[["Deposited",{"amount":98}]]','pay-97',0,'4851',1795572827482);
INSERT INTO "entries" VALUES(99,'account/alice',99,99,'[["Deposited",{"amount":99}]]','pay-98',0,'4950',1795572827482);
INSERT INTO "entries" VALUES(100,'account/alice',100,100,'[["Deposited",{"amount":100}]]','pay-99',0,'5050',1795572827483);
INSERT INTO "entries" VALUES(101,'account/alice',101,101,'[["Deposited",{"amount":101}]]','pay-100',0,'5151',1795572827484);
INSERT INTO "entries" VALUES(102,'account/alice',102,102,'[["Deposited",{"amount":102}]]','pay-101',0,'5253',1795572827484);
INSERT INTO "entries" VALUES(103,'account/alice',103,103,'[["Deposited",{"amount":103}]]','pay-102',0,'5356',1795572827485);
INSERT INTO "entries" VALUES(104,'account/alice',104,104,'[["Deposited",{"amount":104}]]','pay-103',0,'5460',1795572827485);
INSERT INTO "entries" VALUES(105,'account/alice',105,105,'[["Deposited",{"amount":105}]]','pay-104',0,'5565',1795572827486);
INSERT INTO "entries" VALUES(106,'account/alice',106,106,'[["Deposited",{"amount":106}]]','pay-105',0,'5671',1795572827486);
INSERT INTO "entries" VALUES(107,'account/alice',107,107,'[["Deposited",{"amount":107}]]','pay-106',0,'5778',1795572827487);
INSERT INTO "entries" VALUES(108,'account/alice',108,108,'[["Deposited",{"amount":108}]]','pay-107',0,'5886',1795572827488);
INSERT INTO "entries" VALUES(109,'account/alice',109,109,'[["Deposited",{"amount":109}]]','pay-108',0,'5995',1795572827488);
INSERT INTO "entries" VALUES(110,'account/alice',110,110,'[["Deposited",{"amount":110}]]','pay-109',0,'6105',1795572827489);
INSERT INTO "entries" VALUES(111,'account/alice',111,111,'[["Deposited",{"amount":111}]]','pay-110',0,'6216',1795572827489);
INSERT INTO "entries" VALUES(112,'account/alice',112,112,'[["Deposited",{"amount":112}]]','pay-111',0,'6328',1795572827490);
INSERT INTO "entries" VALUES(113,'account/alice',113,113,'[["Deposited",{"amount":113}]]','pay-112',0,'6441',1795572827490);
INSERT INTO "entries" VALUES(114,'account/alice',114,114,'[["Deposited",{"amount":114}]]','pay-113',0,'6555',1795572827491);
INSERT INTO "entries" VALUES(115,'account/alice',115,115,'[["Deposited",{"amount":115}]]','pay-114',0,'6670',1795572827491);
INSERT INTO "entries" VALUES(116,'account/alice',116,116,'[["Deposited",{"amount":116}]]','pay-115',0,'6786',1795572827492);
INSERT INTO "entries" VALUES(117,'account/alice',117,117,'[["Deposited",{"amount":117}]]','pay-116',0,'6903',1795572827492);
INSERT INTO "entries" VALUES(118,'account/alice',118,118,'[["Deposited",{"amount":118}]]','pay-117',0,'7021',1795572827493);
INSERT INTO "entries" VALUES(119,'account/alice',119,119,'[["Deposited",{"amount":119}]]','pay-118',0,'7140',1795572827493);
INSERT INTO "entries" VALUES(120,'account/alice',120,120,'[["Deposited",{"amount":120}]]','pay-119',0,'7260',1795572827494);
INSERT INTO "entries" VALUES(121,'account/alice',121,121,'[["Deposited",{"amount":121}]]','pay-120',0,'7381',1795572827494);
INSERT INTO "entries" VALUES(122,'account/alice',122,122,'[["Deposited",{"amount":122}]]','pay-121',0,'7503',1795572827495);
INSERT INTO "entries" VALUES(123,'account/alice',123,123,'[["Deposited",{"amount":123}]]','pay-122',0,'7626',1795572827495);
INSERT INTO "entries" VALUES(124,'account/alice',124,124,'[["Deposited",{"amount":124}]]','pay-123',0,'7750',1795572827496);
INSERT INTO "entries" VALUES(125,'account/alice',125,125,'[["Deposited",{"amount":125}]]','pay-124',0,'7875',1795572827496);
INSERT INTO "entries" VALUES(126,'account/alice',126,126,'[["Deposited",{"amount":126}]]','pay-125',0,'8001',1795572827497);
INSERT INTO "entries" VALUES(127,'account/alice',127,127,'[["Deposited",{"amount":127}]]','pay-126',0,'8128',1795572827497);
INSERT INTO "entries" VALUES(128,'account/alice',128,128,'[["Deposited",{"amount":128}]]','pay-127',0,'8256',1795572827498);
INSERT INTO "entries" VALUES(129,'account/alice',129,129,'[["Deposited",{"amount":129}]]','pay-128',0,'8385',1795572827498);
INSERT INTO "entries" VALUES(130,'account/alice',130,130,'[["Deposited",{"amount":130}]]','pay-129',0,'8515',1795572827499);
INSERT INTO "entries" VALUES(131,'account/alice',131,131,'[["Deposited",{"amount":131}]]','pay-130',0,'8646',1795572827499);
INSERT INTO "entries" VALUES(132,'account/alice',132,132,'[["Deposited",{"amount":132}]]','pay-131',0,'8778',1795572827500);
INSERT INTO "entries" VALUES(133,'account/alice',133,133,'[["Deposited",{"amount":133}]]','pay-132',0,'8911',1795572827500);
INSERT INTO "entries" VALUES(134,'account/alice',134,134,'[["Deposited",{"amount":134}]]','pay-133',0,'9045',1795572827501);
INSERT INTO "entries" VALUES(135,'account/alice',135,135,'[["Deposited",{"amount":135}]]','pay-134',0,'9180',1795572827501);
INSERT INTO "entries" VALUES(136,'account/alice',136,136,'[["Deposited",{"amount":136}]]','pay-135',0,'9316',1795572827502);
INSERT INTO "entries" VALUES(137,'account/alice',137,137,'[["Deposited",{"amount":137}]]','pay-136',0,'9453',1795572827502);
INSERT INTO "entries" VALUES(138,'account/alice',138,138,'[["Deposited",{"amount":138}]]','pay-137',0,'9591',1795572827503);
INSERT INTO "entries" VALUES(139,'account/alice',139,139,'[["Deposited",{"amount":139}]]','pay-138',0,'9730',1795572827503);
INSERT INTO "entries" VALUES(140,'account/alice',140,140,'[["Deposited",{"amount":140}]]','pay-139',0,'9870',1795572827504);
INSERT INTO "entries" VALUES(141,'account/alice',141,141,'[["Deposited",{"amount":141}]]','pay-140',0,'10011',1795572827504);
INSERT INTO "entries" VALUES(142,'account/alice',142,142,'[["Deposited",{"amount":142}]]','pay-141',0,'10153',1795572827505);
INSERT INTO "entries" VALUES(143,'account/alice',143,143,'[["Deposited",{"amount":143}]]','pay-142',0,'10296',1795572827505);
INSERT INTO "entries" VALUES(144,'account/alice',144,144,'[["Deposited",{"amount":144}]]','pay-143',0,'10440',1795572827506);
INSERT INTO "entries" VALUES(145,'account/alice',145,145,'[["Deposited",{"amount":145}]]','pay-144',0,'10585',1795572827506);
INSERT INTO "entries" VALUES(146,'account/alice',146,146,'[["Deposited",{"amount":146}]]','pay-145',0,'10731',1795572827507);
INSERT INTO "entries" VALUES(147,'account/alice',147,147,'[["Deposited",{"amount":147}]]','pay-146',0,'10878',1795572827507);
INSERT INTO "entries" VALUES(148,'account/alice',148,148,'[["Deposited",{"amount":148}]]','pay-147',0,'11026',1795572827508);
INSERT INTO "entries" VALUES(149,'account/alice',149,149,'[["Deposited",{"amount":149}]]','pay-148',0,'11175',1795572827508);
INSERT INTO "entries" VALUES(150,'account/alice',150,150,'[["Deposited",{"amount":150}]]','pay-149',0,'11325',1795572827509);
INSERT INTO "entries" VALUES(151,'account/alice',151,151,'[["Deposited",{"amount":151}]]','pay-150',0,'11476',1795572827509);
INSERT INTO "entries" VALUES(152,'account/alice',152,152,'[["Deposited",{"amount":152}]]','pay-151',0,'11628',1795572827510);
INSERT INTO "entries" VALUES(153,'account/alice',153,153,'[["Deposited",{"amount":153}]]','pay-152',0,'11781',1795572827510);
INSERT INTO "entries" VALUES(154,'account/alice',154,154,'[["Deposited",{"amount":154}]]','pay-153',0,'11935',1795572827510);
INSERT INTO "entries" VALUES(155,'account/alice',155,155,'[["Deposited",{"amount":155}]]','pay-154',0,'12090',1795572827511);
INSERT INTO "entries" VALUES(156,'account/alice',156,156,'[["Deposited",{"amount":156}]]','pay-155',0,'12246',1795572827511);
INSERT INTO "entries" VALUES(157,'account/alice',157,157,'[["Deposited",{"amount":157}]]','pay-156',0,'12403',1795572827512);
INSERT INTO "entries" VALUES(158,'account/alice',158,158,'[["Deposited",{"amount":158}]]','pay-157',0,'12561',1795572827512);
INSERT INTO "entries" VALUES(159,'account/alice',159,159,'[["Deposited",{"amount":159}]]','pay-158',0,'12720',1795572827513);
INSERT INTO "entries" VALUES(160,'account/alice',160,160,'[["Deposited",{"amount":160}]]','pay-159',0,'12880',1795572827513);
INSERT INTO "entries" VALUES(161,'account/alice',161,161,'[["Deposited",{"amount":161}]]','pay-160',0,'13041',1795572827514);
INSERT INTO "entries" VALUES(162,'account/alice',162,162,'[["Deposited",{"amount":162}]]','pay-161',0,'13203',1795572827514);
INSERT INTO "entries" VALUES(163,'account/alice',163,163,'[["Deposited",{"amount":163}]]','pay-162',0,'13366',1795572827515);
INSERT INTO "entries" VALUES(164,'account/alice',164,164,'[["Deposited",{"amount":164}]]','pay-163',0,'13530',1795572827516);
INSERT INTO "entries" VALUES(165,'account/alice',165,165,'[["Deposited",{"amount":165}]]','pay-164',0,'13695',1795572827516);
INSERT INTO "entries" VALUES(166,'account/alice',166,166,'[["Deposited",{"amount":166}]]','pay-165',0,'13861',1795572827517);
INSERT INTO "entries" VALUES(167,'account/alice',167,167,'[["Deposited",{"amount":167}]]','pay-166',0,'14028',1795572827517);
INSERT INTO "entries" VALUES(168,'account/alice',168,168,'[["Deposited",{"amount":168}]]','pay-167',0,'14196',1795572827518);
INSERT INTO "entries" VALUES(169,'account/alice',169,169,'[["Deposited",{"amount":169}]]','pay-168',0,'14365',1795572827518);
INSERT INTO "entries" VALUES(170,'account/alice',170,170,'[["Deposited",{"amount":170}]]','pay-169',0,'14535',1795572827519);
INSERT INTO "entries" VALUES(171,'account/alice',171,171,'[["Deposited",{"amount":171}]]','pay-170',0,'14706',1795572827519);
INSERT INTO "entries" VALUES(172,'account/alice',172,172,'[["Deposited",{"amount":172}]]','pay-171',0,'14878',1795572827520);
INSERT INTO "entries" VALUES(173,'account/alice',173,173,'[["Deposited",{"amount":173}]]','pay-172',0,'15051',1795572827520);
INSERT INTO "entries" VALUES(174,'account/alice',174,174,'[["Deposited",{"amount":174}]]','pay-173',0,'15225',1795572827521);
INSERT INTO "entries" VALUES(175,'account/alice',175,175,'[["Deposited",{"amount":175}]]','pay-174',0,'15400',1795572827522);
INSERT INTO "entries" VALUES(176,'account/alice',176,176,'[["Deposited",{"amount":176}]]','pay-175',0,'15576',1795572827522);
INSERT INTO "entries" VALUES(177,'account/alice',177,177,'[["Deposited",{"amount":177}]]','pay-176',0,'15753',1795572827523);
INSERT INTO "entries" VALUES(178,'account/alice',178,178,'[["Deposited",{"amount":178}]]','pay-177',0,'15931',1795572827523);
INSERT INTO "entries" VALUES(179,'account/alice',179,179,'[["Deposited",{"amount":179}]]','pay-178',0,'16110',1795572827524);
INSERT INTO "entries" VALUES(180,'account/alice',180,180,'[["Deposited",{"amount":180}]]','pay-179',0,'16290',1795572827524);
INSERT INTO "entries" VALUES(181,'account/alice',181,181,'[["Deposited",{"amount":181}]]','pay-180',0,'16471',1795572827525);
INSERT INTO "entries" VALUES(182,'account/alice',182,182,'[["Deposited",{"amount":182}]]','pay-181',0,'16653',1795572827525);
INSERT INTO "entries" VALUES(183,'account/alice',183,183,'[["Deposited",{"amount":183}]]','pay-182',0,'16836',1795572827526);
INSERT INTO "entries" VALUES(184,'account/alice',184,184,'[["Deposited",{"amount":184}]]','pay-183',0,'17020',1795572827526);
INSERT INTO "entries" VALUES(185,'account/alice',185,185,'[["Deposited",{"amount":185}]]','pay-184',0,'17205',1795572827527);
INSERT INTO "entries" VALUES(186,'account/alice',186,186,'[["Deposited",{"amount":186}]]','pay-185',0,'17391',1795572827527);
INSERT INTO "entries" VALUES(187,'account/alice',187,187,'[["Deposited",{"amount":187}]]','pay-186',0,'17578',1795572827528);
INSERT INTO "entries" VALUES(188,'account/alice',188,188,'[["Deposited",{"amount":188}]]','pay-187',0,'17766',1795572827528);
INSERT INTO "entries" VALUES(189,'account/alice',189,189,'[["Deposited",{"amount":189}]]','pay-188',0,'17955',1795572827529);
INSERT INTO "entries" VALUES(190,'account/alice',190,190,'[["Deposited",{"amount":190}]]','pay-189',0,'18145',1795572827529);
INSERT INTO "entries" VALUES(191,'account/alice',191,191,'[["Deposited",{"amount":191}]]','pay-190',0,'18336',1795572827530);
INSERT INTO "entries" VALUES(192,'account/alice',192,192,'[["Deposited",{"amount":192}]]','pay-191',0,'18528',1795572827531);
INSERT INTO "entries" VALUES(193,'account/alice',193,193,'[["Deposited",{"amount":193}]]','pay-192',0,'18721',1795572827531);
INSERT INTO "entries" VALUES(194,'account/alice',194,194,'[["Deposited",{"amount":194}]]','pay-193',0,'18915',1795572827532);
INSERT INTO "entries" VALUES(195,'account/alice',195,195,'[["Deposited",{"amount":195}]]','pay-194',0,'19110',1795572827532);
INSERT INTO "entries" VALUES(196,'account/alice',196,196,'[["Deposited",{"amount":196}]]','pay-195',0,'19306',1795572827533);
INSERT INTO "entries" VALUES(197,'account/alice',197,197,'[["Deposited",{"amount":197}]]','pay-196',0,'19503',1795572827533);
INSERT INTO "entries" VALUES(198,'account/alice',198,198,'[["Deposited",{"amount":198}]]','pay-197',0,'19701',1795572827534);
INSERT INTO "entries" VALUES(199,'account/alice',199,199,'[["Deposited",{"amount":199}]]','pay-198',0,'19900',1795572827534);
INSERT INTO "entries" VALUES(200,'account/alice',200,200,'[["Deposited",{"amount":200}]]','pay-199',0,'20100',1795572827535);
INSERT INTO "entries" VALUES(201,'account/alice',201,201,'[["Deposited",{"amount":201}]]','pay-200',0,'20301',1795572827536);
INSERT INTO "entries" VALUES(202,'account/alice',202,202,'[["Deposited",{"amount":202}]]','pay-201',0,'20503',1795572827536);
INSERT INTO "entries" VALUES(203,'account/alice',203,203,'[["Deposited",{"amount":203}]]','pay-202',0,'20706',1795572827537);
INSERT INTO "entries" VALUES(204,'account/alice',204,204,'[["Deposited",{"amount":204}]]','pay-203',0,'20910',1795572827537);
INSERT INTO "entries" VALUES(205,'account/alice',205,205,'[["Deposited",{"amount":205}]]','pay-204',0,'21115',1795572827538);
INSERT INTO "entries" VALUES(206,'account/alice',206,206,'[["Deposited",{"amount":206}]]','pay-205',0,'21321',1795572827538);
INSERT INTO "entries" VALUES(207,'account/alice',207,207,'[["Deposited",{"amount":207}]]','pay-206',0,'21528',1795572827539);
INSERT INTO "entries" VALUES(208,'account/alice',208,208,'[["Deposited",{"amount":208}]]','pay-207',0,'21736',1795572827539);
INSERT INTO "entries" VALUES(209,'account/alice',209,209,'[["Deposited",{"amount":209}]]','pay-208',0,'21945',1795572827540);
INSERT INTO "entries" VALUES(210,'account/alice',210,210,'[["Deposited",{"amount":210}]]','pay-209',0,'22155',1795572827541);
INSERT INTO "entries" VALUES(211,'account/alice',211,211,'[["Deposited",{"amount":211}]]','pay-210',0,'22366',1795572827541);
INSERT INTO "entries" VALUES(212,'account/alice',212,212,'[["Deposited",{"amount":212}]]','pay-211',0,'22578',1795572827542);
INSERT INTO "entries" VALUES(213,'account/alice',213,213,'[["Deposited",{"amount":213}]]','pay-212',0,'22791',1795572827542);
INSERT INTO "entries" VALUES(214,'account/alice',214,214,'[["Deposited",{"amount":214}]]','pay-213',0,'23005',1795572827543);
INSERT INTO "entries" VALUES(215,'account/alice',215,215,'[["Deposited",{"amount":215}]]','pay-214',0,'23220',1795572827543);
INSERT INTO "entries" VALUES(216,'account/alice',216,216,'[["Deposited",{"amount":216}]]','pay-215',0,'23436',1795572827544);
INSERT INTO "entries" VALUES(217,'account/alice',217,217,'[["Deposited",{"amount":217}]]','pay-216',0,'23653',1795572827544);
INSERT INTO "entries" VALUES(218,'account/alice',218,218,'[["Deposited",{"amount":218}]]','pay-217',0,'23871',1795572827545);
INSERT INTO "entries" VALUES(219,'account/alice',219,219,'[["Deposited",{"amount":219}]]','pay-218',0,'24090',1795572827545);
INSERT INTO "entries" VALUES(220,'account/alice',220,220,'[["Deposited",{"amount":220}]]','pay-219',0,'24310',1795572827546);
INSERT INTO "entries" VALUES(221,'account/alice',221,221,'[["Deposited",{"amount":221}]]','pay-220',0,'24531',1795572827546);
INSERT INTO "entries" VALUES(222,'account/alice',222,222,'[["Deposited",{"amount":222}]]','pay-221',0,'24753',1795572827547);
INSERT INTO "entries" VALUES(223,'account/alice',223,223,'[["Deposited",{"amount":223}]]','pay-222',0,'24976',1795572827547);
INSERT INTO "entries" VALUES(224,'account/alice',224,224,'[["Deposited",{"amount":224}]]','pay-223',0,'25200',1795572827548);
INSERT INTO "entries" VALUES(225,'account/alice',225,225,'[["Deposited",{"amount":225}]]','pay-224',0,'25425',1795572827548);
INSERT INTO "entries" VALUES(226,'account/alice',226,226,'[["Deposited",{"amount":226}]]','pay-225',0,'25651',1795572827549);
INSERT INTO "entries" VALUES(227,'account/alice',227,227,'[["Deposited",{"amount":227}]]','pay-226',0,'25878',1795572827549);
INSERT INTO "entries" VALUES(228,'account/alice',228,228,'[["Deposited",{"amount":228}]]','pay-227',0,'26106',1795572827550);
INSERT INTO "entries" VALUES(229,'account/alice',229,229,'[["Deposited",{"amount":229}]]','pay-228',0,'26335',1795572827550);
INSERT INTO "entries" VALUES(230,'account/alice',230,230,'[["Deposited",{"amount":230}]]','pay-229',0,'26565',1795572827551);
INSERT INTO "entries" VALUES(231,'account/alice',231,231,'[["Deposited",{"amount":231}]]','pay-230',0,'26796',1795572827551);
INSERT INTO "entries" VALUES(232,'account/alice',232,232,'[["Deposited",{"amount":232}]]','pay-231',0,'27028',1795572827552);
INSERT INTO "entries" VALUES(233,'account/alice',233,233,'[["Deposited",{"amount":233}]]','pay-232',0,'27261',1795572827552);
INSERT INTO "entries" VALUES(234,'account/alice',234,234,'[["Deposited",{"amount":234}]]','pay-233',0,'27495',1795572827553);
INSERT INTO "entries" VALUES(235,'account/alice',235,235,'[["Deposited",{"amount":235}]]','pay-234',0,'27730',1795572827553);
INSERT INTO "entries" VALUES(236,'account/alice',236,236,'[["Deposited",{"amount":236}]]','pay-235',0,'27966',1795572827554);
INSERT INTO "entries" VALUES(237,'account/alice',237,237,'[["Deposited",{"amount":237}]]','pay-236',0,'28203',1795572827554);
INSERT INTO "entries" VALUES(238,'account/alice',238,238,'[["Deposited",{"amount":238}]]','pay-237',0,'28441',1795572827555);
INSERT INTO "entries" VALUES(239,'account/alice',239,239,'[["Deposited",{"amount":239}]]','pay-238',0,'28680',1795572827555);
INSERT INTO "entries" VALUES(240,'account/alice',240,240,'[["Deposited",{"amount":240}]]','pay-239',0,'28920',1795572827556);
INSERT INTO "entries" VALUES(241,'account/alice',241,241,'[["Deposited",{"amount":241}]]','pay-240',0,'29161',1795572827556);
INSERT INTO "entries" VALUES(242,'account/alice',242,242,'[["Deposited",{"amount":242}]]','pay-241',0,'29403',1795572827557);
INSERT INTO "entries" VALUES(243,'account/alice',243,243,'[["Deposited",{"amount":243}]]','pay-242',0,'29646',1795572827557);
INSERT INTO "entries" VALUES(244,'account/alice',244,244,'[["Deposited",{"amount":244}]]','pay-243',0,'29890',1795572827558);
INSERT INTO "entries" VALUES(245,'account/alice',245,245,'[["Deposited",{"amount":245}]]','pay-244',0,'30135',1795572827559);
INSERT INTO "entries" VALUES(246,'account/alice',246,246,'[["Deposited",{"amount":246}]]','pay-245',0,'30381',1795572827559);
INSERT INTO "entries" VALUES(247,'account/alice',247,247,'[["Deposited",{"amount":247}]]','pay-246',0,'30628',1795572827560);
INSERT INTO "entries" VALUES(248,'account/alice',248,248,'[["Deposited",{"amount":248}]]','pay-247',0,'30876',1795572827561);
INSERT INTO "entries" VALUES(249,'account/alice',249,249,'[["Deposited",{"amount":249}]]','pay-248',0,'31125',1795572827561);
INSERT INTO "entries" VALUES(250,'account/alice',250,250,'[["Deposited",{"amount":250}]]','pay-249',0,'31375',1795572827562);
INSERT INTO "entries" VALUES(251,'account/alice',251,250,NULL,'too-much',1,'["rejected","Balance 31375 does not cover 1000000000","account/alice","too-much",0.0,[]]',1795572827562);
INSERT INTO "entries" VALUES(252,'account/Zoë ü-x',1,1,'[["Deposited",{"amount":7}]]','r01k887m1db-ipnk2he71dp20001',0,'7',1795572827563);
INSERT INTO "entries" VALUES(253,'counter/visits',1,0,NULL,'visit-0',0,'2',1795572827564);
INSERT INTO "entries" VALUES(254,'counter/visits',2,0,NULL,'visit-1',0,'4',1795572827565);
INSERT INTO "entries" VALUES(255,'counter/visits',3,0,NULL,'visit-2',0,'6',1795572827565);
INSERT INTO "entries" VALUES(256,'counter/visits',4,0,NULL,'visit-3',0,'8',1795572827566);
INSERT INTO "entries" VALUES(257,'counter/visits',5,0,NULL,'visit-4',0,'10',1795572827567);
INSERT INTO "entries" VALUES(258,'inbox/one',1,0,NULL,'r01k887m1df-ipnk2he71dp20002',0,'0',1795572827568);
INSERT INTO "entries" VALUES(259,'inbox/one',2,0,NULL,'r01k887m1dg-ipnk2he71dp20003',0,'0',1795572827568);
INSERT INTO "entries" VALUES(260,'inbox/two',1,1,'[["Heard",{"word":"first"}]]','inbox/one>257',0,'null',1795572827569);
INSERT INTO "entries" VALUES(261,'inbox/one',3,0,NULL,'r01k887m1dh-ipnk2he71dp20004',0,'0',1795572827569);
INSERT INTO "entries" VALUES(262,'inbox/two',2,2,'[["Heard",{"word":"second"}]]','inbox/one>513',0,'null',1795572827569);
INSERT INTO "entries" VALUES(263,'inbox/two',3,3,'[["Heard",{"word":"third"}]]','inbox/one>769',0,'null',1795572827570);
INSERT INTO "entries" VALUES(264,'inbox/one',4,0,NULL,'r01k887m1di-ipnk2he71dp20005',0,'null',1795572827570);
CREATE TABLE hosts (
    incarnation INTEGER PRIMARY KEY AUTOINCREMENT,
    name        TEXT NOT NULL,
    node        TEXT NOT NULL,
    machine     TEXT NOT NULL,
    pid         INTEGER NOT NULL,
    started     REAL NOT NULL,
    dedicated   TEXT NOT NULL,
    fenced      INTEGER NOT NULL DEFAULT 0
);
INSERT INTO "hosts" VALUES(1,'host-1','local','',0,0.0,'',0);
INSERT INTO "hosts" VALUES(2,'host-2','local','',0,0.0,'',0);
CREATE TABLE marks (
    entity TEXT PRIMARY KEY,
    n      INTEGER NOT NULL,
    marks  TEXT NOT NULL
) WITHOUT ROWID;
INSERT INTO "marks" VALUES('account/alice',200,'{}');
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
INSERT INTO "meta" VALUES('app','history');
INSERT INTO "meta" VALUES('shards','8');
INSERT INTO "meta" VALUES('store','ee763488a569745d928cfce08c820954');
INSERT INTO "meta" VALUES('term','1');
INSERT INTO "meta" VALUES('version','1');
CREATE TABLE outbox (
    entity TEXT NOT NULL,
    n      INTEGER NOT NULL,
    shard  TEXT NOT NULL,
    sends  TEXT NOT NULL,
    parked TEXT,
    PRIMARY KEY (entity, n)
) WITHOUT ROWID;
CREATE TABLE reminders (
    entity TEXT NOT NULL,
    name   TEXT NOT NULL,
    shard  TEXT NOT NULL,
    due    INTEGER NOT NULL,
    PRIMARY KEY (entity, name)
) WITHOUT ROWID;
INSERT INTO "reminders" VALUES('inbox/one','later','6',1895572827570);
CREATE TABLE shards (
    shard TEXT PRIMARY KEY,
    owner INTEGER NOT NULL,
    epoch INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO "shards" VALUES('0',1,1);
INSERT INTO "shards" VALUES('1',2,1);
INSERT INTO "shards" VALUES('2',1,1);
INSERT INTO "shards" VALUES('3',2,1);
INSERT INTO "shards" VALUES('4',1,1);
INSERT INTO "shards" VALUES('5',2,1);
INSERT INTO "shards" VALUES('6',1,1);
INSERT INTO "shards" VALUES('7',2,1);
CREATE TABLE states (
    entity TEXT PRIMARY KEY,
    n      INTEGER NOT NULL,
    seq    INTEGER NOT NULL,
    state  TEXT NOT NULL
) WITHOUT ROWID;
INSERT INTO "states" VALUES('account/alice',200,200,'{"amount":20100}');
INSERT INTO "states" VALUES('counter/visits',5,0,'{"value":10}');
CREATE UNIQUE INDEX entries_of_entity ON entries (entity, n);
CREATE INDEX reminders_due ON reminders (due);
CREATE VIEW commits AS
SELECT 0 AS incarnation, '' AS entries, '' AS states, '' AS marks, '' AS outbox, '' AS delivered, '' AS parked,
       '' AS reminders, '' AS cancelled;
CREATE TRIGGER commits_write INSTEAD OF INSERT ON commits BEGIN
    SELECT RAISE(ABORT, 'fenced')
    WHERE coalesce((SELECT fenced FROM hosts WHERE incarnation = NEW.incarnation), 1);

    INSERT INTO entries (entity, n, seq, events, command_id, verdict, reply, at)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7
    FROM json_each(NEW.entries);

    INSERT OR REPLACE INTO states
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(NEW.states);

    INSERT OR REPLACE INTO marks
    SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(NEW.marks);

    INSERT INTO outbox (entity, n, shard, sends)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(NEW.outbox);

    DELETE FROM outbox
    WHERE (entity, n) IN (SELECT value ->> 0, value ->> 1 FROM json_each(NEW.delivered));

    UPDATE outbox SET parked = p.value ->> 0
    FROM json_each(NEW.parked) p WHERE entity = p.value ->> 1 AND n = p.value ->> 2;

    INSERT OR REPLACE INTO reminders
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(NEW.reminders);

    DELETE FROM reminders
    WHERE (entity, name) IN (SELECT value ->> 0, value ->> 1 FROM json_each(NEW.cancelled));
END;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('hosts',2);
COMMIT;
PRAGMA user_version=1;
